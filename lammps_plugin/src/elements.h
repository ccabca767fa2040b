// SPDX-License-Identifier: GPL-2.0-or-later
// Chemical symbols and standard atomic masses.
#ifndef ORBV3_ELEMENTS_H
#define ORBV3_ELEMENTS_H

#include <string>
#include <vector>

namespace orbv3 {

// 0 when `symbol` is none
int atomic_number(const std::string &symbol);
const char *symbol_of(int atomic_number);
double mass_of(int atomic_number);    // g/mol

// "H C N O" for a message
std::string symbols_of(const std::vector<int> &atomic_numbers);

}    // namespace orbv3

#endif
