//! The tower layers: where they find a token, how they decide about it, and how they respond.

pub(crate) mod authorization;
pub(crate) mod bearer;
pub(crate) mod bearer_policy;
pub(crate) mod challenge;
#[cfg(feature = "axum")]
pub(crate) mod extract;
pub(crate) mod phantom;
pub(crate) mod phantom_policy;
pub(crate) mod resource_metadata;
pub(crate) mod response_future;
pub(crate) mod service;
pub(crate) mod step_up;
pub(crate) mod token_source;
