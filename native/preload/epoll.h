/* SPDX-License-Identifier: MIT
 *
 * epoll's sets and their members: what epoll.c, which waits, has of members.c. Locks: a set's, then `lists`.
 */
#ifndef FFV_PRELOAD_EPOLL_H
#define FFV_PRELOAD_EPOLL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "base/spin.h"

struct pre_conn;
struct ffv_rs_socket;

#define PRE_NEVER_SEEN UINT64_MAX
#define PRE_OF_STREAM 1u           /* added to a member's address, where the kernel tells of the stream's number */

struct pre_set {
	int fd;
	pthread_mutex_t lock;
	struct pre_member *members;
	struct pre_member *hot, **hot_end;
	struct pre_member *kick;           /* stands for the eventfd in the kernel's set */
	int kick_fd;
	bool is_open;
	bool hot_are_armed;                /* some may be */
	_Atomic bool is_nested;            /* the program waits for the set itself, by poll or in another set */
	struct ffv_spin_state spin;
	uint32_t unasked;                  /* waits since the kernel was asked */
	_Atomic uint32_t sleepers;
	_Atomic bool has_changed;          /* some connection has got its stream */
};

struct pre_member {
	struct pre_set *set;               /* NULL: free */
	struct pre_conn *conn;             /* held */
	int fd;                            /* the program's number */
	struct epoll_event wanted;
	bool has_stream;                   /* ours to tell of */
	bool is_shown;                     /* its stream's number is in the kernel's set */
	bool is_hot, is_disabled;          /* after EPOLLONESHOT */
	uint32_t tcp_events;               /* what the TCP socket is asked for; 0: it is not in the kernel's set */
	uint32_t tcp_edge;                 /* what it has told and was not reported */
	int engine;
	struct ffv_rs_socket *armed;
	uint32_t sleeps;                   /* since it was ready */
	uint64_t seen;                     /* what was true of the stream when it was reported last */
	struct pre_member *next_in_set, *next_in_conn, *next_hot;
};

/* The set that the program knows by this number, if a connection with a stream may be in it; else NULL. */
struct pre_set *pre_set_of(int fd);
/* The same, made if need be. */
struct pre_set *pre_set_need(int fd);
bool pre_is_member(uint64_t data);
/* Wakes who waits in the set, or for it. */
void pre_set_kick(struct pre_set *set);

/* From now on the kernel's set is readable whenever one of the members may be ready. */
void pre_set_nest(struct pre_set *set);

/* With the set's lock held: */
/* If it is nested, keeps that promise. To be called after what may have broken it; errno stays. */
void pre_set_promise(struct pre_set *set);
int pre_set_control(struct pre_set *set, struct pre_conn *conn, int operation, int fd, struct epoll_event *event);
/* It is looked at in each wait; fired: the kernel told of it. */
void pre_member_heat(struct pre_member *member, bool fired);
void pre_member_cool(struct pre_member *member);
/* Its stream's number stands in the kernel's set, so that it can be armed; false: it cannot. */
bool pre_member_show(struct pre_member *member);
/* Asks the TCP socket for what the stream does not tell. */
void pre_member_follow(struct pre_member *member);
/* The connection may have got its stream. */
void pre_member_take_over(struct pre_member *member);

#endif
