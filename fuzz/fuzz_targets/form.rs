//! A form is read or refused, and a parameter that is read is never empty.
#![no_main]

use cloakroom::http::Form;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    if let Ok(form) = Form::parse(body) {
        assert_ne!(form.get("token"), Some(""));
        let _ = form.resources();
    }
});
