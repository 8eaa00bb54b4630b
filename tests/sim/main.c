/* main.c: runs histories, in processes of their own, side by side.
 *
 *   sim [--seeds N | --seconds S] [--first SEED] [--members M] [--steady] [--thin] [--jobs J] [--file FILE] [--verbose]
 *
 * N histories from SEED on, or as many as S seconds take; or those that FILE names, a seed at the start of each line.
 * --steady: only such as have one member in trouble at a time and change the membership all the while. --thin: with thin links
 * (links.h), wherever they may be. A
 * worker that finds a breach says so and ends; so does one that the code under test brings down, and what its seed was
 * is then said here. Ends with status 0 if all held, with what was run, and how fast; 128 + N if signal N stopped it. */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/sim/sim.h"

enum {
    JOBS_MAX = 64,
    SEED_CPU_S_MAX = 60, /* one that takes longer goes round in circles */
    LISTED_MAX = 4096,
};

struct totals {
    uint64_t histories;
    uint64_t numbers[SIM_TOTALS_COUNT];
};

/* Shared with the workers. */
struct board {
    _Atomic uint64_t taken; /* positions handed out */
    _Atomic bool has_failed;
    struct {
        uint64_t seed; /* that it is at; 0: none */
        struct totals totals;
    } workers[JOBS_MAX];
};

struct plan {
    uint64_t seeds; /* 0: until the time is over */
    uint64_t first;
    uint64_t seconds;
    uint64_t jobs;
    const char *file;
    uint64_t listed[LISTED_MAX];
    uint64_t until_ns; /* 0: no limit */
    struct sim_options options;
};

static uint64_t monotonic_ns(void)
{
    struct timespec now;
    INVARIANT_EQ(clock_gettime(CLOCK_MONOTONIC, &now), 0);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* ---- Arguments ------------------------------------------------------------------------------------------------ */

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

static bool take_arguments(int argc, char **argv, struct plan *plan)
{
    uint64_t members = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--verbose") == 0) {
            plan->options.verbose = true;
        } else if (strcmp(argv[i], "--steady") == 0) {
            plan->options.steady = true;
        } else if (strcmp(argv[i], "--thin") == 0) {
            plan->options.thin = true;
        } else if (strcmp(argv[i], "--file") == 0 && i + 1 < argc) {
            plan->file = argv[++i];
        } else if (!take_number(argc, argv, &i, "--seeds", &plan->seeds) &&
                   !take_number(argc, argv, &i, "--seconds", &plan->seconds) &&
                   !take_number(argc, argv, &i, "--first", &plan->first) &&
                   !take_number(argc, argv, &i, "--members", &members) &&
                   !take_number(argc, argv, &i, "--jobs", &plan->jobs)) {
            return false;
        }
    }
    plan->options.members = (unsigned)MIN(members, UINT64_C(7));
    plan->jobs = MAX(UINT64_C(1), MIN(plan->jobs, (uint64_t)JOBS_MAX));
    if (plan->seconds > 0) {
        plan->until_ns = monotonic_ns() + plan->seconds * 1000000000;
        plan->seeds = plan->seeds == 0 ? UINT64_MAX : plan->seeds;
    } else if (plan->seeds == 0) {
        plan->seeds = 100;
    }
    return true;
}

static bool read_file(struct plan *plan)
{
    FILE *file = fopen(plan->file, "re");
    if (file == NULL) {
        (void)fprintf(stderr, "sim: %s: %m\n", plan->file);
        return false;
    }
    char line[1024];
    plan->seeds = 0;
    while (fgets(line, sizeof line, file) != NULL && plan->seeds < LISTED_MAX) {
        char *end;
        uint64_t seed = strtoull(line, &end, 10);
        if (end != line) {
            plan->listed[plan->seeds++] = seed;
        }
    }
    (void)fclose(file);
    return true;
}

/* ---- Workers -------------------------------------------------------------------------------------------------- */

static void limit_core(void)
{
    (void)setrlimit(RLIMIT_CORE, &(struct rlimit){ 0 }); /* the seed says more than a dump */
}

static void limit_cpu(time_t seconds)
{
    struct itimerval limit = { .it_value = { .tv_sec = seconds } };
    INVARIANT_EQ(setitimer(ITIMER_PROF, &limit, NULL), 0);
}

NORETURN static void work(struct board *board, struct plan *plan, size_t worker)
{
    static struct sim sim;
    static char dir[128];
    static char said[1 << 16];
    struct totals *totals = &board->workers[worker].totals;
    limit_core();
    (void)snprintf(dir, sizeof dir, "%s/%zu", plan->options.dir, worker);
    INVARIANT_EQ(mkdir(dir, 0700), 0);
    plan->options.dir = dir;
    if (!plan->options.verbose) {
        (void)setvbuf(stdout, said, _IOFBF, sizeof said); /* in one piece */
    }
    while (!atomic_load(&board->has_failed) &&
            (plan->until_ns == 0 || monotonic_ns() < plan->until_ns)) {
        uint64_t position = atomic_fetch_add(&board->taken, 1);
        if (position >= plan->seeds) {
            break;
        }
        uint64_t seed = plan->file != NULL ? plan->listed[position] : plan->first + position;
        board->workers[worker].seed = seed;
        limit_cpu(SEED_CPU_S_MAX);
        sim_run(seed, &plan->options, &sim);
        limit_cpu(0);
        board->workers[worker].seed = 0;
        totals->histories++;
        for (size_t i = 0; i < SIM_TOTALS_COUNT; i++) {
            totals->numbers[i] += sim.totals[i];
        }
        sim_fini(&sim);
    }
    (void)fflush(stdout);
    _exit(0);
}

/* ---- Folders: each member's lock is in one ----------------------------------------------------------------------- */

static const char *make_root(void)
{
    static char root[96];
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(root, sizeof root, "%.80s/sim-XXXXXX", tmp == NULL ? "/var/tmp" : tmp);
    if (mkdtemp(root) == NULL) {
        (void)fprintf(stderr, "sim: a folder in %s: %m\n", root);
        exit(2);
    }
    return root;
}

static void remove_root(const char *root, uint64_t jobs)
{
    char path[160];
    for (uint64_t i = 0; i < jobs; i++) {
        for (int slot = 0; slot < SIM_NODES_MAX; slot++) {
            (void)snprintf(path, sizeof path, "%s/%" PRIu64 "/%d/LOCK", root, i, slot);
            (void)unlink(path);
            *strrchr(path, '/') = '\0';
            (void)rmdir(path);
        }
        *strrchr(path, '/') = '\0';
        (void)rmdir(path);
    }
    (void)rmdir(root);
}

/* A worker has ended; true if with all well. */
static bool look_at_end(
        const struct board *board, const struct plan *plan, size_t worker, int status)
{
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        return true;
    }
    uint64_t seed = board->workers[worker].seed;
    if (WIFSIGNALED(status)) {
        (void)printf("FAILED seed=%" PRIu64 ": ended by signal %d (%s)\n", seed, WTERMSIG(status),
                WTERMSIG(status) == SIGPROF ? "goes round in circles" : "see above");
    }
    (void)printf("replay: sim --first %" PRIu64 " --seeds 1%s", seed,
            plan->options.steady ? " --steady" : "");
    (void)printf("%s", plan->options.thin ? " --thin" : "");
    if (plan->options.members != 0) {
        (void)printf(" --members %u", plan->options.members);
    }
    (void)printf(" --verbose\n");
    return false;
}

static bool run_workers(struct board *board, struct plan *plan)
{
    pid_t pids[JOBS_MAX];
    bool is_well = true;
    (void)fflush(stdout);
    for (size_t i = 0; i < plan->jobs; i++) {
        pids[i] = fork();
        INVARIANT(pids[i] >= 0);
        if (pids[i] == 0) {
            work(board, plan, i);
        }
    }
    for (size_t left = plan->jobs; left > 0; left--) {
        int status;
        pid_t pid = wait(&status);
        for (size_t i = 0; i < plan->jobs; i++) {
            if (pids[i] == pid && !look_at_end(board, plan, i, status)) {
                is_well = false;
                atomic_store(&board->has_failed, true);
            }
        }
    }
    return is_well;
}

static void print_totals(const struct board *board, const struct plan *plan, uint64_t took_ns)
{
    struct totals sum = { 0 };
    for (size_t i = 0; i < plan->jobs; i++) {
        sum.histories += board->workers[i].totals.histories;
        for (size_t j = 0; j < SIM_TOTALS_COUNT; j++) {
            sum.numbers[j] += board->workers[i].totals.numbers[j];
        }
    }
    (void)printf("sim: %" PRIu64 " histories held, %.0f an hour with %" PRIu64 " at a time:",
            sum.histories, (double)sum.histories * 3600e9 / (double)took_ns, plan->jobs);
    for (size_t i = 0; i < SIM_TOTALS_COUNT; i++) {
        (void)printf(" %s=%" PRIu64, sim_total_names[i], sum.numbers[i]);
    }
    (void)printf("\n");
}

static struct board *watched;
static volatile sig_atomic_t stopped_by;

/* Asked to stop: the histories under way end, and nothing is left behind. */
static void on_signal(int signal)
{
    stopped_by = signal;
    atomic_store(&watched->has_failed, true);
}

static void watch_signals(struct board *board)
{
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
    watched = board;
    INVARIANT_EQ(sigaction(SIGINT, &action, NULL), 0);
    INVARIANT_EQ(sigaction(SIGTERM, &action, NULL), 0);
}

int main(int argc, char **argv)
{
    static struct plan plan = { .first = 1, .jobs = 1 };
    if (!take_arguments(argc, argv, &plan)) {
        (void)fprintf(stderr, "sim [--seeds N | --seconds S] [--first SEED] [--members 1..7] "
                              "[--steady] [--thin] [--jobs J] [--file FILE] [--verbose]\n");
        return 2;
    }
    if (plan.file != NULL && !read_file(&plan)) {
        return 2;
    }
    struct board *board =
            mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    INVARIANT(board != MAP_FAILED);
    uint64_t began_ns = monotonic_ns();
    const char *root = make_root();
    plan.options.dir = root;
    watch_signals(board);
    bool is_well = run_workers(board, &plan);
    remove_root(root, plan.jobs);
    print_totals(board, &plan, MAX(UINT64_C(1), monotonic_ns() - began_ns));
    if (stopped_by != 0) {
        (void)printf("sim: stopped by signal %d before all were played\n", (int)stopped_by);
        return 128 + (int)stopped_by;
    }
    return is_well ? 0 : 1;
}
