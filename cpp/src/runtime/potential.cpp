#include "orb_export/potential.h"

#include <algorithm>
#include <mutex>

#include "assemble.h"
#include "backend.h"
#include "captured.h"
#include "chain.h"
#include "container.h"
#include "graph_checks.h"
#include "metadata.h"
#include "on_device.h"
#include "orb_export/contract.h"
#include "peak_memory.h"
#include "python_lock.h"
#include "tensors.h"

#ifndef ORB_EXPORT_VERSION
#error "the build defines ORB_EXPORT_VERSION"
#endif

namespace orb_export {
namespace {

// On a GPU through graphs, unless memory is limited: they keep theirs.
std::unique_ptr<Backend> open_backend(const std::string &path, const Metadata &metadata, int device,
                                      const Options &options) {
  const bool wanted = device >= 0 && options.cuda_graphs && options.memory_limit == 0;
  MakeGraph make_graph = wanted ? graphs_of(torch_device(device)) : MakeGraph();
  auto backend = metadata.format == "aoti" ? open_aoti(path, device, make_graph != nullptr)
                                           : open_torchscript(path, device);
  if (!make_graph) return backend;
  return through_graphs(std::move(backend), std::move(make_graph), metadata);
}

class CompiledPotential : public Potential {
 public:
  CompiledPotential(const std::string &path, Metadata metadata, int device, const Options &options)
      : path_(path),
        metadata_(std::move(metadata)),
        device_(device),
        memory_limit_(options.memory_limit),
        program_(options.program),
        backend_(open_backend(path, metadata_, device, options)) {}

  const Metadata &metadata() const override { return metadata_; }

  Memory predict_memory(int64_t n_atoms, int64_t n_edges, const Request &request) const override {
    const Problem problem = problem_of(metadata_, n_atoms, n_edges, request.forces, torch_threads());
    const int64_t whole = predicted_bytes_of_whole(problem);
    const int64_t least = metadata_.has_steps() ? std::min(whole, least_bytes(problem)) : whole;
    if (uses_whole(problem, request)) return {whole, least};
    return {predicted_bytes(problem, choose_plan(problem, memory_limit_)), least};
  }

  Result evaluate(const Graph &graph, const Request &request, Exchange *exchange) override {
    if (exchange)
      return together(graph, request, *exchange,
                      [&] { return choose_plan(problem(graph, request), memory_limit_); });
    if (graph.failure) throw std::runtime_error(graph.failure);
    check_graph(graph, metadata_, false);
    if (uses_whole(problem(graph, request), request))
      return attempt(graph, [&] {
        const auto outputs = backend_->run(to_tensors(graph, torch_device(device_)));
        return assemble(graph, metadata_, request, to_outputs(outputs, graph, metadata_));
      });
    Collective alone;
    return walk(graph, request, choose_plan(problem(graph, request), memory_limit_), alone);
  }

  Result evaluate_in_chunks(const Graph &graph, const Request &request, int64_t chunk,
                            const std::vector<int> &kept, Exchange *exchange) override {
    const Plan plan = make_plan(chunk, kept, metadata_);
    if (exchange) return together(graph, request, *exchange, [&] { return plan; });
    check_graph(graph, metadata_, false);
    Collective alone;
    return walk(graph, request, plan, alone);
  }

  std::unique_ptr<DeviceEvaluation> on_device(const std::vector<int64_t> &numbers) override {
    const auto run = [this](const Graph &graph, const std::vector<at::Tensor> &inputs) {
      const Request request;
      const Problem problem =
          problem_of(metadata_, graph.n_atoms, inputs[1].size(0), request.forces, torch_threads());
      if (uses_whole(problem, request)) return backend_->run(inputs);
      return chain().outputs(graph, inputs, choose_plan(problem, memory_limit_));
    };
    return std::make_unique<OnDevice>(run, metadata_, torch_device(device_), numbers);
  }

 private:
  Problem problem(const Graph &graph, const Request &request) const {
    return problem_of(metadata_, graph.n_atoms, graph.n_edges, request.forces, torch_threads());
  }

  // One of several processes. What is wrong with all of them alike is said before any of them communicates.
  template <class MakePlan>
  Result together(const Graph &graph, const Request &request, Exchange &exchange, const MakePlan &make_plan) {
    if (!metadata_.has_steps())
      throw std::invalid_argument("evaluate: several processes need the steps of the potential, which `" +
                                  path_ + "` does not have: export it again, without --no-steps");
    Collective collective(exchange, calls_of(graph, metadata_, request), graph.n_atoms);
    try {
      if (graph.failure) throw std::runtime_error(graph.failure);
      check_graph(graph, metadata_, true);
      return walk(graph, request, make_plan(), collective);
    } catch (...) {
      collective.give_up();
      throw;
    }
  }

  Result walk(const Graph &graph, const Request &request, const Plan &plan, Collective &collective) {
    return attempt(graph, [&, &steps = chain()] { return steps.run(graph, plan, request, collective); });
  }

  template <class Function>
  Result attempt(const Graph &graph, const Function &run) const {
    Result result;
    PeakMemory peak;
    try {
      const WithoutPythonLock unlocked;
      result = run();
    } catch (const AnotherProcessFailed &) {
      throw;
    } catch (const NotFinite &) {
      throw;
    } catch (const std::exception &error) {
      throw std::runtime_error("evaluate: model `" + metadata_.model + "` failed on " +
                               std::to_string(graph.n_atoms) + " atoms and " + std::to_string(graph.n_edges) +
                               " edges: " + short_message(error));
    }
    result.memory = peak.bytes();
    return result;
  }

  // The chain is the faster for an energy alone and for many edges, and the only one where memory is short.
  bool uses_whole(const Problem &problem, const Request &request) const {
    const bool fits = memory_limit_ == 0 || predicted_bytes_of_whole(problem) <= memory_limit_;
    if (metadata_.has_steps()) {
      const bool faster = device_ >= 0 || !prefers_steps(problem);
      return fits && request.forces && (program_ == "auto" ? faster : program_ == "whole");
    }
    if (fits) return true;
    throw std::invalid_argument("evaluate: `memory_limit` is " + std::to_string(memory_limit_) +
                                " bytes but " + std::to_string(problem.n_atoms) + " atoms and " +
                                std::to_string(problem.n_edges) + " edges need " +
                                std::to_string(predicted_bytes_of_whole(problem)) + ", and `" + path_ +
                                "` has no steps to save memory with: export it again, without --no-steps");
  }

  // Opened when first needed: few hosts need both the whole program and the steps.
  Chain &chain() {
    std::call_once(chain_opened_, [this] {
      if (read_container(path_).file_sha256 != metadata_.file_sha256)
        throw std::runtime_error("`" + path_ + "` is another file than when it was loaded");
      auto steps = metadata_.format == "aoti" ? open_aoti_steps(path_, metadata_, device_)
                                              : open_torchscript_steps(path_, metadata_, device_);
      chain_ = std::make_unique<Chain>(std::move(steps), metadata_, device_);
    });
    return *chain_;
  }

  std::string path_;
  Metadata metadata_;
  int device_;
  int64_t memory_limit_;
  std::string program_;
  std::unique_ptr<Backend> backend_;
  std::once_flag chain_opened_;
  std::unique_ptr<Chain> chain_;
};

void check_program(const std::string &program, const std::string &path, const Metadata &metadata) {
  if (program != "auto" && program != "whole" && program != "steps")
    throw std::invalid_argument("load: `program` is `" + program + "` but must be auto, whole or steps");
  if (program == "steps" && !metadata.has_steps())
    throw std::invalid_argument("load: `program` is `steps`, which `" + path +
                                "` does not have: export it again, without --no-steps");
}

}    // namespace

std::unique_ptr<Potential> load_potential(const std::string &path, const Options &options) {
  if (options.threads < 0)
    throw std::invalid_argument("load: `threads` is " + std::to_string(options.threads) +
                                " but must be 0 (torch's own choice) or positive");
  if (options.memory_limit < 0)
    throw std::invalid_argument("load: `memory_limit` is " + std::to_string(options.memory_limit) +
                                " but must be 0 (no limit) or a number of bytes");
  Metadata metadata = read_metadata(path, read_container(path), torch_version());
  check_program(options.program, path, metadata);
  const int device = resolve_device(path, metadata, options.device);
  auto potential = std::make_unique<CompiledPotential>(path, std::move(metadata), device, options);
  if (options.threads > 0) set_torch_threads(options.threads);
  return potential;
}

}    // namespace orb_export

extern "C" const orb_export::Runtime *orb_export_runtime() {
  static const orb_export::Runtime runtime = {orb_export::kSchemaVersion, ORB_EXPORT_VERSION,
                                              orb_export::torch_version(), orb_export::load_potential};
  return &runtime;
}
