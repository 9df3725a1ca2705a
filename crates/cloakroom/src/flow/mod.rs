//! How clients get tokens: new grants, codes, refresh tokens, and tokens of other systems.

pub(crate) mod adopt;
pub(crate) mod authorization_request;
pub(crate) mod authorization_response;
pub(crate) mod authorize;
pub(crate) mod chain;
pub(crate) mod expiry;
pub(crate) mod extension_grant;
pub(crate) mod hook;
pub(crate) mod issue;
pub(crate) mod mint;
pub(crate) mod narrow_scope;
pub(crate) mod new_grant;
pub(crate) mod redeem;
pub(crate) mod refresh;
pub(crate) mod request;
pub(crate) mod successor;
