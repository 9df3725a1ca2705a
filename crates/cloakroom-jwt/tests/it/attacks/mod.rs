//! The attacks that tokens and keys are known for, as tables: each row with the reason why it is
//! refused, each table with a twin that is accepted.

mod bignum;
mod confusion;
mod ecdsa;
mod ed25519;
mod encoding;
mod headers;
mod json;
mod jwk;
mod jwk_set;
mod kinds;
mod rsa;

/// The reasons that recur.
const SEGMENTS: &str = "Malformed(it does not have three segments)";
const NO_HEADER: &str = "Malformed(the header is not a JSON object without duplicate members)";
const OWN_KEY: &str = "Header(it contains a key)";
const WRONG_TYP: &str = "Header(`typ` is not `at+jwt`)";
