/* One process of the stress test (tests/crash/test_stress.py): what its files share.
 *
 * An end is one side of a connection. The operations that each side sends follow from a seed that both know, so the
 * receiver can tell, for every message, which it must be, how long, and every byte of it. What is wrong ends the
 * process with a message. */
#ifndef FFV_TESTS_STRESS_H
#define FFV_TESTS_STRESS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <ffverbs/ffv.h>

#define STRESS_DEPTH 16u               /* of every queue, a power of two */
#define STRESS_MOST (128u << 10)       /* bytes of the longest message */
#define STRESS_WINDOW 4u               /* slots that WRITE and READ use in the peer's memory */
#define STRESS_ENDS 64u
#define STRESS_THREADS 2u
#define STRESS_SHARED 64u              /* receives of the shared receive queue */

#define FAIL(...)                                                                       \
	do {                                                                            \
		fprintf(stderr, "stress %d: %s:%d: ", stress.id, __FILE__, __LINE__);   \
		fprintf(stderr, __VA_ARGS__);                                           \
		fprintf(stderr, " (%s)\n", ffv_error_text());                           \
		stress_fail();                                                          \
	} while (0)
/* Ends the process; with STRESS_HOLD in the environment it waits for a debugger instead. */
_Noreturn void stress_fail(void);

#define MUST(call)                                \
	do {                                      \
		if ((call) != 0)                  \
			FAIL("%s", #call);        \
	} while (0)

enum end_kind { END_RC, END_RC_SHARED, END_UC };
enum memory_kind { MEMORY_ENGINE, MEMORY_HEAP, MEMORY_FILE };

struct buffer { struct ffv_mr *mr; uint8_t *at; size_t length; enum memory_kind kind; void *base; };

/* What a posted send must come to. */
struct sent { uint64_t seed; uint64_t original; uint32_t length; uint8_t opcode; bool signaled; };

struct end {
	bool used, started, broken, told; /* told: an async event said that it broke */
	enum end_kind kind;
	struct ffv_qp *qp;
	uint32_t qpn;
	uint64_t send_seed, receive_seed;
	/* our buffers: messages from and to us, and what the peer may write, read and count in */
	struct buffer outbox, inbox, window;
	uint64_t peer_window;
	uint32_t peer_rkey;
	/* sending */
	uint64_t posted, completed;
	struct sent sent[STRESS_DEPTH];
	struct { uint64_t seed; uint32_t length; } written[STRESS_WINDOW];
	uint64_t sum, swapped;            /* of the peer's two counters */
	uint64_t consuming;               /* messages sent that take a receive */
	/* receiving */
	uint64_t next_message;            /* index in the peer's operations */
	uint64_t received, receives_posted, receives_done;
};

struct worker {
	pthread_t thread;
	pthread_mutex_t lock;             /* of everything here but while the thread sleeps */
	struct ffv_comp_channel *channel;
	struct ffv_cq *cq;
	struct end ends[STRESS_ENDS];
	int wake_fd;
	uint64_t random;
	uint64_t completions, bytes, sleeps;
};

struct shared_receives {
	pthread_mutex_t lock;
	struct ffv_srq *srq;
	struct buffer buffer;
	bool posted[STRESS_SHARED];
};

struct stress {
	int id;
	uint64_t incarnation;             /* tells a process from those that had its id before */
	struct ffv_context *ctx;
	struct ffv_pd *pd;
	struct worker workers[STRESS_THREADS];
	struct shared_receives shared;
	_Atomic bool quiet;               /* post no more sends */
	_Atomic bool stop;
};

extern struct stress stress;

/* ---- stress_pattern.c ---------------------------------------------------------------------------------------------- */

uint64_t stress_mix(uint64_t a, uint64_t b);
void stress_fill(uint8_t *at, size_t length, uint64_t seed);
void stress_check(const uint8_t *at, size_t length, uint64_t seed, const char *what, uint64_t sequence);
void stress_buffer_make(struct buffer *buffer, size_t length, enum memory_kind kind);
void stress_buffer_drop(struct buffer *buffer);

/* The operation with this index of a side's sequence. */
struct planned { uint8_t opcode; uint32_t length; uint64_t seed; uint64_t luck; bool consumes; };
struct planned stress_plan(enum end_kind kind, uint64_t seed, uint64_t index);

/* ---- stress_end.c ---------------------------------------------------------------------------------------------------- */

void stress_end_make(struct worker *worker, struct end *end, enum end_kind kind, enum memory_kind memory, uint64_t seed,
		     unsigned side);
void stress_end_start(struct end *end, const struct ffv_gid *gid, uint32_t qpn, uint64_t window, uint32_t rkey);
/* Posts some sends if there is room; true if it did. */
bool stress_end_send(struct worker *worker, struct end *end);
void stress_end_complete(struct worker *worker, struct end *end, const struct ffv_wc *wc);
/* Everything posted has come back (sends only, or receives too). */
bool stress_end_is_idle(const struct end *end, bool receives_too);
void stress_end_drop(struct end *end);
void stress_shared_make(void);
void stress_shared_drop(void);

/* ---- stress_datagram.c ------------------------------------------------------------------------------------------------- */

void stress_datagrams_make(struct worker *worker);
uint32_t stress_datagrams_qpn(void);
void stress_datagrams_meet(unsigned who, const struct ffv_gid *gid, uint32_t qpn);
void stress_datagrams_leave(unsigned who);
bool stress_datagrams_send(struct worker *worker);
bool stress_datagrams_complete(const struct ffv_wc *wc);
bool stress_datagrams_are_idle(void);
void stress_datagrams_drop(void);

#endif
