//! The connection to the authorization server: requests, credentials, discovery.

pub(crate) mod credentials;
pub(crate) mod discovery;
pub(crate) mod endpoint;
pub(crate) mod http;
pub(crate) mod json;
pub(crate) mod protected;
#[cfg(feature = "client")]
pub(crate) mod reqwest;
pub(crate) mod single_fetch;
pub(crate) mod token_client;
