/* The guest of benches/boot.sh: a user program's first line, then power off. */
#include <sys/reboot.h>
#include <unistd.h>

int main(void) {
    static const char line[] = "first line of a user program\n";
    write(1, line, sizeof line - 1);
    reboot(RB_POWER_OFF);
    for (;;)
        pause();
}
