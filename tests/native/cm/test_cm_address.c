/* Addresses as services: what is loopback, what a wildcard stands for, how an address travels. */
#include "cm/address.h"
#include "cm_support.h"

static const uint8_t gid[16] = { [10] = 0xff, 0xff, 10, 9, 8, 7 };

static void check_service(const char *text, char scope, bool by_gid)
{
	union ffv_sockaddr addr = cm_address(text, 99);
	struct ffv_service service;
	uint8_t bytes[16];

	ffv_address_service(gid, &addr, FFV_PS_TCP, &service);
	ffv_address_bytes(&addr, bytes);
	CHECK_EQ(service.scope, scope);
	CHECK_EQ(memcmp(service.address, by_gid ? gid : bytes, 16), 0);
	CHECK_EQ(service.port, 99);
}

static void test_services(void)
{
	check_service(OWN_ADDRESS, FFV_SCOPE_GLOBAL, true);
	check_service("10.1.1.1", FFV_SCOPE_GLOBAL, false);
	check_service("fd00::5", FFV_SCOPE_GLOBAL, false);
	check_service("::ffff:10.9.8.7", FFV_SCOPE_GLOBAL, true);
	check_service("127.0.0.1", FFV_SCOPE_LOOPBACK4, true);
	check_service("127.9.9.9", FFV_SCOPE_LOOPBACK4, true);
	check_service("::1", FFV_SCOPE_LOOPBACK6, true);
	check_service("0.0.0.0", FFV_SCOPE_LOOPBACK4, true);
	check_service("::", FFV_SCOPE_LOOPBACK6, true);
}

static uint32_t scopes_of(const char *text, bool family_only, char *scopes)
{
	struct ffv_service services[16];
	union ffv_sockaddr addr = cm_address(text, 99);
	uint32_t count = ffv_address_services_of_any(gid, &addr, family_only, FFV_PS_TCP, services, 16);

	for (uint32_t i = 0; i < count; i++)
		scopes[i] = services[i].scope;
	scopes[count] = 0;
	return count;
}

static void test_wildcards(void)
{
	char scopes[17];

	CHECK_EQ(scopes_of("0.0.0.0", false, scopes), 2); /* FFVERBS_IP says who we are: no interfaces besides */
	CHECK_STR(scopes, "g4");
	CHECK_EQ(scopes_of("::", false, scopes), 3);
	CHECK_STR(scopes, "g46");
	CHECK_EQ(scopes_of("::", true, scopes), 1);
	CHECK_STR(scopes, "6");
}

static void test_kinds(void)
{
	static const struct { const char *text; bool any, loopback, multicast, local; } table[] = {
		{ "0.0.0.0", true, false, false, true },   { "::", true, false, false, true },
		{ "127.0.0.1", false, true, false, true }, { "::1", false, true, false, true },
		{ "230.0.0.1", false, false, true, false }, { "ff0e::1", false, false, true, false },
		{ OWN_ADDRESS, false, false, false, true }, { "10.1.1.1", false, false, false, false },
		{ "fd00::5", false, false, false, false },
	};

	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
		union ffv_sockaddr addr = cm_address(table[i].text, 1), back;
		struct ffv_cm_endpoint endpoint;
		CHECK_EQ(ffv_address_is_any(&addr), table[i].any);
		CHECK_EQ(ffv_address_is_loopback(&addr), table[i].loopback);
		CHECK_EQ(ffv_address_is_multicast(&addr), table[i].multicast);
		CHECK_EQ(ffv_address_is_local(gid, &addr), table[i].local);
		ffv_address_to_endpoint(&addr, &endpoint);
		ffv_address_from_endpoint(&endpoint, &back);
		CHECK_EQ(memcmp(&addr, &back, sizeof addr), 0);
	}
}

int main(void)
{
	CHECK_EQ(setenv("FFVERBS_IP", OWN_ADDRESS, 1), 0);
	test_services();
	test_wildcards();
	test_kinds();
	return 0;
}
