// Linked into wheels alone. GCC 12 on Debian 12 would bind these names to glibc 2.29 and 2.32; wheels need 2.28, as torch's
// own do. exp and log got new versions when they stopped setting errno, which nothing here reads.
#if defined(__x86_64__)
#define MM_OLDEST "GLIBC_2.2.5"
#else
#define MM_OLDEST "GLIBC_2.17"
#endif

extern "C" {

// libstdc++ reads it to skip atomic instructions in programs of one thread: 0 keeps them.
__attribute__((visibility("hidden"))) char __libc_single_threaded = 0;

__asm__(".symver oldest_exp, exp@" MM_OLDEST);
__asm__(".symver oldest_log, log@" MM_OLDEST);
double oldest_exp(double);
double oldest_log(double);

// What the linker's --wrap calls in place of exp and log.
double __wrap_exp(double x) { return oldest_exp(x); }
double __wrap_log(double x) { return oldest_log(x); }
}
