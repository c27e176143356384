/* SPDX-License-Identifier: MIT
 *
 * What this library knows of a program's descriptors: which of them are TCP connections that may go, or go, by a stream of
 * ffverbs, and which are listeners that such connections come from.
 *
 * A number is the kernel's TCP socket, always; names, options and the program's children have that. A connection that both
 * ends want on verbs has a stream beside it. Each direction begins on TCP and goes over to the stream at a byte that its sender
 * chooses and tells by the stream's first mark; it goes back to TCP, before a fork for example, at the second mark.
 *
 * The end that connected asks for the stream, under the address that its TCP socket has; the end that accepted finds the
 * request by that address. Whoever does not speak this never asks, or has nobody who listens: that stays TCP.
 *
 * Threads: any. Locks: tx, rx (what is sent and received while a direction goes over), then lock (the rest).
 */
#ifndef FFV_PRELOAD_CONN_H
#define FFV_PRELOAD_CONN_H

#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include <ffverbs/ffv.h>

#include "base/atomics.h"
#include "preload/real.h"

#define PRE_GIVE_UP_NS 10000000000ull /* after this time nobody will ask for a stream any more */
#define PRE_EXPORT __attribute__((visibility("default")))

enum pre_kind { PRE_LISTENER, PRE_CONNECTS, PRE_ACCEPTED, PRE_DATAGRAMS }; /* the last: datagram.c */
enum pre_marks { PRE_MARKS_NONE, PRE_MARKS_BEGUN, PRE_MARKS_ENDED };

struct pre_member;                     /* epoll.c */

struct pre_conn {
	_Atomic uint32_t refs;             /* numbers and calls; memory is used again, never given back */
	struct pre_conn *next;             /* in the pool, or of all (table lock) */
	uint32_t numbers;                  /* table lock */
	pthread_mutex_t tx, rx, lock;
	enum pre_kind kind;                /* from here on zero at first */
	_Atomic bool is_plain;             /* TCP for good: nothing of it is translated */
	_Atomic bool has_engine;
	int engine;                        /* number of the stream, or of the listener */
	int tcp;                           /* number of our own for the same TCP socket, when there is a stream */
	bool was_asked;                    /* a listener: to listen here as well */
	bool is_inherited;                 /* of a fork: another process may have it, too */
	int holders;                       /* fork.c; how many processes have what was accepted, 0: not shared */
	int own_listener;                  /* for the request of this one connection */
	unsigned asks;                     /* how often a stream was asked for, or was made possible */
	uint64_t next_ask_ns;
	bool is_away;                      /* it is refused by another host, which takes a while */
	struct pre_conn *listener;         /* where it came from, held */
	struct sockaddr_in6 peer;          /* in the family of the program's socket */
	uint64_t give_up_ns;
	_Atomic uint64_t tcp_sent, tcp_got;
	_Atomic bool tx_on_verbs, rx_on_verbs;
	uint64_t tcp_until;                /* rx; how many bytes come by TCP before the stream's; UINT64_MAX: not known */
	bool rx_is_back;                   /* rx; on TCP again, for good */
	enum pre_marks marks_sent;         /* tx */
	bool tx_shut;
	bool has_mark_arrived;             /* tx; the peer knows where to read on when TCP has ended */
	bool has_left;                     /* fork.c */
	bool is_lost;                      /* of a fork child: the parent's stream could not be given up */
	struct pre_rest *rest, *copy;      /* of a fork child: what came by the parent's stream and was not read; and for the next one */
	struct sockaddr_in6 own;           /* of datagrams: the kernel's, port 0: not known */
	bool is_bound, is_answered;        /* of datagrams: by the program; by a peer that has verbs */
	bool is_left;                      /* of datagrams: the kernel's for good, but for what is `left` to read */
	unsigned uses;
	_Atomic uint32_t waiting;          /* threads that sleep in the kernel, by its socket */
	struct pre_left *left;             /* of a UDP socket that is_left */
	_Atomic uint32_t spins;            /* whether polling before sleeping pays (wait.c) */
	struct pre_member *members;        /* epoll.c's lock */
};

/* ---- table.c ---------------------------------------------------------------------------------------------------------------- */

/* NULL: the number is none of ours. Else to be given back. */
struct pre_conn *pre_get(int fd);
void pre_put(struct pre_conn *conn);
/* With a number; NULL if there is no memory. The caller has a reference beside that of the number. */
struct pre_conn *pre_new(int fd, enum pre_kind kind);
void pre_add_number(int fd, struct pre_conn *conn);
/* Before the kernel's number is closed, or means something else. */
void pre_drop_number(int fd);
/* The highest number that may be known, plus one. */
int pre_end_of_numbers(void);
/* For each connection, held meanwhile. */
void pre_for_each(void (*function)(int fd, struct pre_conn *conn, void *argument), void *argument);
bool pre_hold(struct pre_conn *conn);
void pre_lock_table(void);
void pre_unlock_table(void);

/* ---- high.c ------------------------------------------------------------------------------------------------------------------- */

/* Where numbers begin that are not the program's. */
int pre_first_high(void);
/* The program may need what is left of them. */
bool pre_is_scarce(int fd);
/* The engine's socket under a high number; -errno stays as it is. */
int pre_raise_engine(int engine);

/* ---- environment.c ------------------------------------------------------------------------------------------------------------ */

/* Before the engine is used. */
void pre_restore_environment(void);

/* ---- find.c ------------------------------------------------------------------------------------------------------------------- */

/* -1 if it has none such. */
int pre_option(int fd, int level, int name);
/* A process that will accept from it listens on verbs, too. */
void pre_will_accept(struct pre_conn *listener, int fd);
/* Takes the next step towards a stream, if there is one to take. True: the connection has a stream. */
bool pre_advance(struct pre_conn *conn, int fd);
/* Programs (PostgreSQL) fork in handlers of signals that only select lets through: not while we hold locks there. */
void pre_hold_signals(sigset_t *before);
/* Lock held: nobody here will answer the peer's request. */
void pre_refuse(struct pre_conn *conn);

/* ---- conn.c ------------------------------------------------------------------------------------------------------------------ */

/* After the kernel's calls have succeeded, or a connection is being made. */
void pre_connecting(int fd, const struct sockaddr *addr, socklen_t length);
void pre_listening(int fd);
void pre_accepted(int listener_fd, int fd);
/* Lock held, in these three: it gets a stream; loses it; is TCP for good. */
void pre_attach(struct pre_conn *conn, int fd, int engine);
void pre_detach(struct pre_conn *conn);
void pre_become_plain(struct pre_conn *conn);
/* The options of the kernel's socket that are the engine's to mind. */
void pre_carry_over(int fd, int engine);
/* tx held: lets what is sent from now on go by the stream, if it can. */
bool pre_begin_sending(struct pre_conn *conn);
/* Before TCP's end is sent, which must not overtake the first mark. */
void pre_let_mark_arrive(struct pre_conn *conn);
/* rx held: looks whether what comes now comes by the stream, or no longer does. */
void pre_look_at_marks(struct pre_conn *conn);
/* tx held: what is sent from now on goes by TCP, for good. */
void pre_end_sending(struct pre_conn *conn);
/* If the peer is back on TCP, so is this end, and the stream is given up. No lock held. */
void pre_retire(struct pre_conn *conn);
/* No number any more. */
void pre_end(struct pre_conn *conn);

static inline bool pre_is_all_on_verbs(const struct pre_conn *conn)
{
	return ffv_load_relaxed(&conn->rx_on_verbs) && ffv_load_relaxed(&conn->tx_on_verbs);
}

/* ---- datagram.c -------------------------------------------------------------------------------------------------------------- */

/* After the kernel's calls have succeeded. */
void pre_made(int fd, int domain, int type, int protocol);
void pre_bound(int fd);
void pre_datagrams_connected(struct pre_conn *conn, int fd, const struct sockaddr *addr, socklen_t length);
void pre_datagrams_option(struct pre_conn *conn, int level, int name, const void *value, socklen_t length);
/* pre_advance for these. */
bool pre_advance_datagrams(struct pre_conn *conn, int fd);
/* UDP for good; what came and was not read is. */
void pre_leave_datagrams(struct pre_conn *conn);
bool pre_has_left(const struct pre_conn *conn);
/* No number any more. */
void pre_end_datagrams(struct pre_conn *conn);
/* In a fork child. */
void pre_forget_datagrams(struct pre_conn *conn);

/* ---- fork.c -------------------------------------------------------------------------------------------------------------------- */

/* Before the first stream or listener is used, when the engine has its own handlers of fork: those run inside of ours. */
void pre_handle_forks(void);
/* Looks after what the peer may ask of the connection while the program does not. */
void pre_attend(struct pre_conn *conn);
/* The peer has left the stream: this end does too. No lock held. */
void pre_answer(struct pre_conn *conn);
/* No other process has it any more, of those that had it when one forked. */
bool pre_is_sole_holder(const struct pre_conn *conn);
void pre_hold_no_longer(struct pre_conn *conn);
/* Lock held: before this process closes what others may still use. */
void pre_leave_for_others(struct pre_conn *conn);
/* Reads what a fork left; 0: nothing is left. */
long pre_read_rest(struct pre_conn *conn, const struct msghdr *msg, int flags);
bool pre_has_rest(const struct pre_conn *conn);
/* How many bytes of TCP come before it. */
uint64_t pre_before_rest(const struct pre_conn *conn);

/* ---- report.c ---------------------------------------------------------------------------------------------------------------- */

enum pre_count { PRE_CONNECTIONS, PRE_SENDERS, PRE_RECEIVERS, PRE_COUNTS };
void pre_count(enum pre_count what);
void pre_forget_counts(void);
/* Of a datagram socket of the engine that is about to be closed. */
void pre_count_datagrams(int engine);

/* ---- epoll.c ------------------------------------------------------------------------------------------------------------------ */

/* A connection has got its stream: sets that it is in wait for that. */
void pre_epoll_changed(struct pre_conn *conn);
/* The sets know of its TCP socket again what the program said, and of nothing else. */
void pre_epoll_restore(struct pre_conn *conn);
void pre_epoll_forget(struct pre_conn *conn);
/* The number is closed: if it was a set, so is what is known of it. */
void pre_epoll_closed(int fd);
/* A number that is polled: if it is a set, it tells the truth from now on. */
void pre_epoll_polled(int fd);
/* Above all numbers of sets. */
int pre_epoll_end(void);
void pre_epoll_lock(void);
void pre_epoll_unlock(bool in_child);

/* ---- wait.c -------------------------------------------------------------------------------------------------------------------- */

/* What is true now of what is wanted (POLLIN ...), as far as the stream tells it. */
int pre_stream_readiness(struct pre_conn *conn, int wanted);
/* Which of the events the TCP socket tells. */
int pre_tcp_events(const struct pre_conn *conn, int wanted);
int pre_poll(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask);
/* Waits on one connection. 0, or -errno; -EAGAIN: the time of the option is over. */
int pre_wait_for(struct pre_conn *conn, int fd, int events, int timeout_option);

/* errno as libc's functions set it. */
long pre_result(long rc);

#endif
