/* SPDX-License-Identifier: MIT
 *
 * Programs that clean their environment (nginx's workers) still mean the node directory and the address that they were
 * started with: what the engine asks the environment for is kept from the start.
 */
#include <stdlib.h>
#include <string.h>

#include "preload/conn.h"

#define MOST_KEPT 16
#define PREFIX "FFVERBS_"

extern char **environ;
static char *kept[MOST_KEPT];          /* NAME=VALUE */

__attribute__((constructor)) static void keep(void)
{
	int count = 0;

	for (char **at = environ; at && *at && count < MOST_KEPT; at++)
		if (!strncmp(*at, PREFIX, sizeof PREFIX - 1) && (kept[count] = strdup(*at)))
			count++;
}

static void restore(void)
{
	for (int i = 0; i < MOST_KEPT && kept[i]; i++) {
		char name[64];
		size_t length = strcspn(kept[i], "=");
		if (length >= sizeof name || !kept[i][length])
			continue;
		memcpy(name, kept[i], length);
		name[length] = 0;
		setenv(name, kept[i] + length + 1, 0);
	}
}

void pre_restore_environment(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, restore);
}
