/* SPDX-License-Identifier: MIT
 *
 * Ends of the process that run no handlers. The kernel delivers what a connection of TCP was given, whatever becomes of the process;
 * of a stream to another host, it knows nothing. exit(3) is the engine's to mind.
 */
#include <unistd.h>

#include "preload/conn.h"

static void end_at_once(int status)
{
	ffv_socket_deliver();
	pre_real()->_exit(status);
	__builtin_unreachable();
}

PRE_EXPORT __attribute__((alias("end_at_once"))) void pre_exit(int) __asm__("_exit");
PRE_EXPORT __attribute__((alias("end_at_once"))) void pre_exit_c99(int) __asm__("_Exit");
