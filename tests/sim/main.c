/* main.c: sim --seeds N --first S [--members M] [--verbose]: runs N histories, the first with seed S. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/sim.h"

struct totals {
    uint64_t steps;
    uint64_t committed;
    uint64_t elections;
    uint64_t crashes;
    uint64_t snapshots;
    uint64_t changes;
    uint64_t reads;
};

static bool take_number(
        int argc, char **argv, int *position, const char *flag, uint64_t *ret_number)
{
    if (strcmp(argv[*position], flag) != 0 || *position + 1 >= argc) {
        return false;
    }
    char *end;
    errno = 0;
    uint64_t number = strtoull(argv[*position + 1], &end, 10);
    if (errno != 0 || *end != '\0' || end == argv[*position + 1]) {
        return false;
    }
    *ret_number = number;
    (*position)++;
    return true;
}

int main(int argc, char **argv)
{
    uint64_t seeds = 100;
    uint64_t first = 1;
    uint64_t members = 0;
    struct sim_options options = { 0 };
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--verbose") == 0) {
            options.verbose = true;
        } else if (!take_number(argc, argv, &i, "--seeds", &seeds) &&
                   !take_number(argc, argv, &i, "--first", &first) &&
                   !take_number(argc, argv, &i, "--members", &members)) {
            (void)fprintf(stderr, "sim [--seeds N] [--first S] [--members 1..7] [--verbose]\n");
            return 2;
        }
    }
    options.members = (unsigned)MIN(members, UINT64_C(7));
    struct totals totals = { 0 };
    static struct sim sim;
    for (uint64_t seed = first; seed < first + seeds; seed++) {
        sim_run(seed, &options, &sim);
        totals.steps += sim.steps;
        totals.committed += sim.check.committed_last;
        totals.elections += sim.elections;
        totals.crashes += sim.crashes;
        totals.snapshots += sim.snapshots_installed;
        totals.changes += sim.changes;
        totals.reads += sim.reads_granted;
        sim_fini(&sim);
    }
    (void)printf("sim: %" PRIu64 " histories held: steps=%" PRIu64 " committed=%" PRIu64
                 " elections=%" PRIu64 " crashes=%" PRIu64 " snapshots_installed=%" PRIu64
                 " changes=%" PRIu64 " reads_granted=%" PRIu64 "\n",
            seeds, totals.steps, totals.committed, totals.elections, totals.crashes,
            totals.snapshots, totals.changes, totals.reads);
    return 0;
}
