/* The library states the version that the build was given. */
#include <ffverbs/ffv.h>

#include "check.h"

int main(void)
{
	CHECK_STR(ffv_version(), EXPECTED_VERSION);
	return 0;
}
