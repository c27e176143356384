/* Child processes for the C tests: run a function in one, as another user or in namespaces of its own. A failed check
 * in the child fails the parent's. */
#ifndef FFV_TESTS_CHILD_H
#define FFV_TESTS_CHILD_H

#include <grp.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#define CHILD_NOBODY 65534 /* a user without privileges, as on every system */

/* As root, bodies that test permissions run as nobody; else as ourselves, who have none either. */
static inline uid_t child_unprivileged(void)
{
	return geteuid() == 0 ? CHILD_NOBODY : geteuid();
}

static inline pid_t child_start(uid_t uid, void (*body)(void *), void *arg)
{
	fflush(NULL);
	pid_t child = fork();
	CHECK(child >= 0);
	if (child)
		return child;
	if (uid != geteuid()) {
		CHECK_EQ(setgroups(0, NULL), 0);
		CHECK_EQ(setresgid(uid, uid, uid), 0);
		CHECK_EQ(setresuid(uid, uid, uid), 0);
	}
	body(arg);
	fflush(NULL);
	_exit(0);
}

/* The exit status, or 128 + the signal that ended it. */
static inline int child_wait(pid_t child)
{
	int status;

	CHECK_EQ(waitpid(child, &status, 0), child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static inline void child_run(uid_t uid, void (*body)(void *), void *arg)
{
	CHECK_EQ(child_wait(child_start(uid, body, arg)), 0);
}

#endif
