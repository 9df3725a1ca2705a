#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (cloakroom_fuzz_targets::target("jwk_set").run)(input));
