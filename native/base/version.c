/* The engine's version, as the build states it. */
#include <ffverbs/ffv.h>

const char *ffv_version(void)
{
	return FFV_VERSION;
}
