/* SPDX-License-Identifier: MIT
 *
 * See fault.h. Process-private; the armed point is process-wide, its counter atomic.
 */
#include "base/fault.h"

#if FFV_FAULTS
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"

static const char *const names[FFV_FAULT_COUNT] = {
#define FFV_FAULT_NAME(name, what) #name,
	FFV_FAULT_POINTS(FFV_FAULT_NAME)
#undef FFV_FAULT_NAME
};

static atomic_int armed_point = -1;
static atomic_long passages_left;
static atomic_int armed_signal;

const char *ffv_fault_name(enum ffv_fault_point point)
{
	return names[point];
}

int ffv_fault_arm(const char *spec)
{
	const char *colon = strchr(spec, ':');
	const char *last = strrchr(spec, ':');

	if (!colon || last == colon)
		return ffv_fail(EINVAL, "fault '%s' is not NAME:COUNT:ACTION", spec);
	int point = 0;
	while (point < FFV_FAULT_COUNT && (strlen(names[point]) != (size_t)(colon - spec) ||
					   strncmp(names[point], spec, (size_t)(colon - spec))))
		point++;
	int sig = !strcmp(last + 1, "kill") ? SIGKILL : !strcmp(last + 1, "stop") ? SIGSTOP : 0;
	long count = strtol(colon + 1, NULL, 10);
	if (point == FFV_FAULT_COUNT || !sig || count < 1)
		return ffv_fail(EINVAL, "fault '%s': unknown point, action or count", spec);
	atomic_store(&passages_left, count);
	atomic_store(&armed_signal, sig);
	atomic_store(&armed_point, point);
	return 0;
}

__attribute__((constructor)) static void arm_from_environment(void)
{
	const char *spec = getenv("FFVERBS_FAULT");

	if (spec && ffv_fault_arm(spec)) {
		static const char message[] = "ffverbs: FFVERBS_FAULT is not NAME:COUNT:ACTION of a known point\n";
		if (write(STDERR_FILENO, message, sizeof message - 1) < 0)
			abort();
		abort();
	}
}

int ffv_fault_is_due(enum ffv_fault_point point)
{
	return atomic_load_explicit(&armed_point, memory_order_relaxed) == (int)point && atomic_load(&passages_left) == 1;
}

void ffv_fault_hit(enum ffv_fault_point point)
{
	if (atomic_load_explicit(&armed_point, memory_order_relaxed) != (int)point)
		return;
	if (atomic_fetch_sub(&passages_left, 1) == 1)
		raise(atomic_load(&armed_signal)); /* not to the process: another thread would take it, and this one go on */
}
#else
typedef int ffv_fault_unused;
#endif
