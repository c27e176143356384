/* SPDX-License-Identifier: MIT
 *
 * ffverbs: sockets on verbs and the connection manager. Part of the public header ffv.h.
 *
 * What the calls do is what POSIX and socket(7), tcp(7) say of their namesakes, unless it says otherwise here. They return
 * 0, a count or a descriptor, else a negative errno: the kernel's own for that failure (-EAGAIN, -EINPROGRESS,
 * -ECONNREFUSED, -EPIPE ...). None raises SIGPIPE, none touches errno. -EBADF: the number is no socket of ours.
 *
 * The number of a socket is a real descriptor of the kernel, made with the lowest number free, close-on-exec as asked
 * for. It belongs to this library: its holder may poll it, for POLLIN only, as told at ffv_socket_arm, and passes it to no
 * other call of the kernel but close-on-exec flags. The library makes its own calls on such numbers by syscall(2), so
 * whoever interposes libc's functions does not meet them.
 *
 * Any number of threads may use a socket at once. Closing it while another thread is in a call on it ends that call with
 * -EBADF or its result, and never frees what is in use.
 *
 * Where a peer that does not speak this is to be reached by ordinary TCP, and what becomes of sockets in a fork child:
 * docs/decisions/0030-sockets.md.
 */
#ifndef FFVERBS_FFV_SOCKET_H
#define FFVERBS_FFV_SOCKET_H

#include <ffverbs/ffv_cm.h>

#ifdef __cplusplus
extern "C" {
#endif

struct msghdr;
struct ffv_rs_socket;              /* opaque: a socket that is armed */

/* ---- life -------------------------------------------------------------------------------------------------------- */

/* AF_INET or AF_INET6, SOCK_STREAM or SOCK_DGRAM, with SOCK_NONBLOCK and SOCK_CLOEXEC. -EAFNOSUPPORT, -EPROTONOSUPPORT, -ESOCKTNOSUPPORT
 * for others, -EMFILE. Does not open the device: that is done by the first bind, listen or connect. */
int ffv_socket(int domain, int type, int protocol);
/* 1 if it is the number of a socket of ours. Takes no lock; for the first look at every descriptor. */
int ffv_is_socket(int fd);
/* The descriptor new_fd, which was made from fd by dup() or its like, is another number of the same socket. */
int ffv_socket_dup(int fd, int new_fd);
/* Gives up one number, and with the last one the connection: gracefully, or as SO_LINGER says. Data that was not read, and
 * SO_LINGER with 0 seconds, reset it. What was sent is delivered, also to another host: exit() waits for that. The number is closed in the kernel as well. */
int ffv_close_socket(int fd);
/* What exit() does: says the end on connections to other hosts and waits, at most 10 s, until what was sent on them is delivered. For
 * who ends the process without exit(), also in a handler of a signal: the kernel would deliver it afterwards, but does not know of it. */
void ffv_socket_deliver(void);

/* ---- connecting -------------------------------------------------------------------------------------------------- */

int ffv_bind(int fd, const struct sockaddr *addr, uint32_t length);
/* From now on connections are made (up to backlog) whether accept is called or not. */
int ffv_listen(int fd, int backlog);
int ffv_accept4(int fd, struct sockaddr *addr, uint32_t *length, int flags);
/* Also on a non-blocking socket, -ECONNREFUSED and -EHOSTUNREACH come at once, with no waiting, when the host itself knows
 * that nobody listens at the address, or that no container has it: the moment to go by ordinary TCP. Then the socket is
 * as it was. For other addresses the router is asked, if there is one: that nobody has it (EHOSTUNREACH) or listens there
 * (ECONNREFUSED), or does not answer (ETIMEDOUT), is reported later, by SO_ERROR; so is a peer that ends the attempt. */
int ffv_connect(int fd, const struct sockaddr *addr, uint32_t length);
int ffv_getsockname(int fd, struct sockaddr *addr, uint32_t *length);
int ffv_getpeername(int fd, struct sockaddr *addr, uint32_t *length);
int ffv_shutdown(int fd, int how);

/* ---- datagrams --------------------------------------------------------------------------------------------------- */

/* A datagram socket is bound before anything else; its port is one of ffverbs, and UDP's of the same number is the caller's to
 * have. Sending one of at most FFV_SOCKET_DATAGRAM_BYTES succeeds, or the error says why it has to go by UDP:
 * -EINPROGRESS, whether the address has such a socket is being found out; -ECONNREFUSED, it has none; -EMSGSIZE; -EAGAIN, no
 * room; -EOPNOTSUPP, flags or control data. So a datagram that comes may have come either way, and their order is as UDP's. One that
 * finds no room at the receiver (SO_RCVBUF, before binding) is lost, and so are those to a socket that was closed in the last second.
 * IPv6 sockets have no IPv4 peers here. What msg_name of ffv_recvmsg gets is the sender's address. */
#define FFV_SOCKET_DATAGRAM_BYTES 4072u
long ffv_sendto(int fd, const void *data, size_t length, int flags, const struct sockaddr *addr, uint32_t addr_length);
long ffv_recvfrom(int fd, void *data, size_t length, int flags, struct sockaddr *addr, uint32_t *addr_length);
/* The kernel's UDP socket udp_fd, which is bound and connected alike, is used beside fd from now on (a duplicate of it): what has to go by UDP
 * goes by it, with its errors, and what comes to it is received as well; ffv_socket_ioctl(FIONREAD) and the number, if it is watched
 * (ffv_socket_watch), tell of both. ffv_socket_poll and ffv_socket_arm do not: who waits by these asks the kernel's socket too. */
int ffv_socket_beside(int fd, int udp_fd);
/* Whether it is worth while to have a datagram socket that is bound to `from`, to send from there to `to`: 0, or as sending would fail,
 * -EINPROGRESS or -ECONNREFUSED. Never waits. */
int ffv_datagrams_reach(const struct sockaddr *from, uint32_t from_length, const struct sockaddr *to, uint32_t to_length);
/* 1 if the option of a UDP socket changes nothing of what this library does for it; 0 if it has to be left to UDP, whole: it asks for
 * control data with what is received, or filters that. */
int ffv_datagrams_allow(int level, int name);
/* How many were sent and received by UD. */
int ffv_socket_datagrams(int fd, uint64_t counts[2]);

/* ---- data -------------------------------------------------------------------------------------------------------- */

/* flags: MSG_DONTWAIT, MSG_NOSIGNAL, MSG_MORE, MSG_EOR; others -EOPNOTSUPP. Control data is -EINVAL. */
long ffv_sendmsg(int fd, const struct msghdr *msg, int flags);
/* flags: MSG_DONTWAIT, MSG_PEEK, MSG_WAITALL, MSG_TRUNC (data is thrown away), MSG_CMSG_CLOEXEC, MSG_NOSIGNAL. MSG_OOB is
 * -EINVAL: there is no urgent data. msg_namelen and msg_controllen become 0. */
long ffv_recvmsg(int fd, struct msghdr *msg, int flags);
long ffv_send(int fd, const void *data, size_t length, int flags);
long ffv_recv(int fd, void *data, size_t length, int flags);

/* ---- options ----------------------------------------------------------------------------------------------------- */

/* Every option of SOL_SOCKET, IPPROTO_TCP, IPPROTO_IP and IPPROTO_IPV6 that has a meaning here does what it says
 * (SO_ERROR, SO_TYPE, SO_DOMAIN, SO_PROTOCOL, SO_ACCEPTCONN, SO_LINGER, SO_RCVTIMEO, SO_SNDTIMEO, SO_RCVBUF before
 * connecting, SO_RCVLOWAT, SO_REUSEADDR, IPV6_V6ONLY, TCP_INFO's state); those that only tune a network are kept and told
 * again (SO_KEEPALIVE, SO_SNDBUF, TCP_NODELAY, TCP_KEEPIDLE ...). -ENOPROTOOPT for others. */
int ffv_setsockopt(int fd, int level, int name, const void *value, uint32_t length);
int ffv_getsockopt(int fd, int level, int name, void *value, uint32_t *length);
/* FIONREAD, FIONBIO, TIOCOUTQ (SIOCOUTQ). -ENOTTY for others. */
int ffv_socket_ioctl(int fd, unsigned long request, void *arg);
/* The flags of open file descriptions that count: O_NONBLOCK, for all numbers of the socket. */
int ffv_socket_flags(int fd);
int ffv_socket_set_flags(int fd, int flags);

/* ---- readiness --------------------------------------------------------------------------------------------------- */

/* What is true now: POLLIN, POLLOUT, POLLRDHUP, POLLHUP, POLLERR as poll(2) tells them of a TCP socket. */
int ffv_socket_poll(int fd);
/* For a thread that is about to sleep in the kernel (poll, select, epoll) on the number itself, for POLLIN: from now on the
 * kernel reports it readable when readiness may have changed. Returns readiness as ffv_socket_poll, found after that
 * promise was made: if it is what the caller waits for, do not sleep. Any number of threads may have a socket armed; each
 * ends it by giving *armed to ffv_socket_disarm, soon after it woke up, also if the socket was closed meanwhile, and looks
 * at ffv_socket_poll again then. */
int ffv_socket_arm(int fd, struct ffv_rs_socket **armed);
/* fired: the kernel reported the number readable. It may be so once more without reason. */
void ffv_socket_disarm(struct ffv_rs_socket *armed, int fired);
/* A number that counts what may have made the socket ready anew: data or connections that came, room for data,
 * the end. For edge-triggered waiting: an edge is a change of it while ffv_socket_poll says ready. */
uint64_t ffv_socket_changes(int fd);
/* From now on the number itself tells the truth to the kernel's poll, select and epoll, POLLIN and POLLOUT level-triggered,
 * for programs whose waiting cannot be translated. It costs a thread's work at each change. The file behind the number is
 * replaced: to be called before it is added to an epoll set or duplicated. Accepted sockets inherit it. */
int ffv_socket_watch(int fd);

/* ---- beside another connection ----------------------------------------------------------------------------------- */

/* For a program that has a TCP connection with the same peer, and goes over to the stream and back.
 *
 * As ffv_listen, but a connection is made only when ffv_accept_from asks for it by the peer's address; who is not asked for
 * within some seconds is refused. */
int ffv_listen_asked(int fd, int backlog);
/* Makes the connection with that peer: a number, non-blocking and close-on-exec, that is connecting. -ENOENT: the peer has not
 * asked for one (yet). */
int ffv_accept_from(int fd, const struct sockaddr *peer, uint32_t length);
/* Refuses it instead. -ENOENT as well. */
int ffv_refuse_from(int fd, const struct sockaddr *peer, uint32_t length);
/* How many wait to be asked for. */
int ffv_requests_waiting(int fd);
/* Says something of 28 bits between the data before and the data after it. The second mark of a direction is its end, as
 * shutdown's. */
int ffv_socket_mark(int fd, uint32_t value);
/* Whether the first mark is with the peer, which may not have looked at it: 1, 0. On one host it is at once. */
int ffv_socket_mark_has_arrived(int fd);
/* How many marks came, and what they said. The first may have come ahead of data that stands before it. */
int ffv_socket_marks(int fd, uint32_t marks[2]);

#ifdef __cplusplus
}
#endif
#endif
