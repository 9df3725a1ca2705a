//! What a checked request says.

use cloakroom_core::time::UnixTime;
use cloakroom_core::{Audience, ClientId, Confirmation, Scope};
use serde::{Deserialize, Serialize};

/// What a client wants to be shown to the user (OpenID Connect Core §3.1.2.1 `prompt`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Prompt {
    /// No page at all.
    None,
    /// The sign-in, even if the user has signed in.
    Login,
    /// The consent page, even if the user has consented before.
    Consent,
    /// A choice of accounts.
    SelectAccount,
    /// The registration of a new account ("Initiating User Registration via OpenID Connect").
    Create,
}

impl Prompt {
    pub(super) fn parse(value: &str) -> Option<Self> {
        Some(match value {
            "none" => Self::None,
            "login" => Self::Login,
            "consent" => Self::Consent,
            "select_account" => Self::SelectAccount,
            "create" => Self::Create,
            _ => return None,
        })
    }
}

/// How the response reaches the client (OAuth 2.0 Multiple Response Types §2.1, Form Post Response Mode).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ResponseMode {
    #[default]
    Query,
    FormPost,
}

/// The checked parameters of a request.
#[derive(Serialize, Deserialize)]
pub(super) struct Terms {
    /// Names the request among those that were approved.
    pub(super) id: [u8; 16],
    pub(super) requested_at: UnixTime,
    /// A sealed request can be opened and approved until then.
    pub(super) expires_at: UnixTime,
    pub(super) client: ClientId,
    pub(super) redirect_uri: String,
    pub(super) redirect_uri_omitted: bool,
    pub(super) mode: ResponseMode,
    pub(super) state: Option<String>,
    pub(super) scope: Scope,
    pub(super) audience: Audience,
    pub(super) challenge: Option<String>,
    pub(super) dpop_jkt: Option<Confirmation>,
    pub(super) nonce: Option<String>,
    pub(super) prompt: Vec<Prompt>,
    /// In seconds.
    pub(super) max_age: Option<u64>,
    pub(super) acr_values: Vec<String>,
    pub(super) login_hint: Option<String>,
    /// The parameters that nothing here reads.
    pub(super) others: Vec<(String, String)>,
}
