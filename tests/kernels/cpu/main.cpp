// The kernels alone, without Python or torch, for the sanitizers and for machines under an emulator.
#include <cstdarg>

#include "check.h"

namespace {
int failures = 0;
}

uint32_t math_step = 997;

Check*& Check::first() {
  static Check* head = nullptr;
  return head;
}

void expect(bool holds, const char* format, ...) {
  if (holds) return;
  ++failures;
  va_list arguments;
  va_start(arguments, format);
  std::vfprintf(stderr, format, arguments);
  va_end(arguments);
  std::fputc('\n', stderr);
}

// An argument is the step from one float32 to the next that the elementary functions are tried at; 1 tries all of them.
int main(int argc, char** argv) {
  if (argc > 1) math_step = static_cast<uint32_t>(std::atoi(argv[1]));
  for (int i = 0; const manymax::Kernels* kernels = manymax::runnable(i); ++i) {
    for (const Check* check = Check::first(); check != nullptr; check = check->next) {
      if (check->isa != nullptr && std::strcmp(check->isa, kernels->isa) != 0) continue;
      const int before = failures;
      check->run(*kernels);
      std::printf("%-12s %-10s %s\n", kernels->isa, check->name, failures == before ? "passed" : "FAILED");
      std::fflush(stdout);
    }
  }
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
