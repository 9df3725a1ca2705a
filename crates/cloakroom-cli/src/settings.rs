//! The settings for which the servers do not use the defaults, from a TOML file.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use cloakroom::core::keys::KeyPolicy;
use cloakroom::jwt::Algorithm;
use cloakroom::{IssuerBuilder, Lifetimes};
use serde::Deserialize;

use crate::failure::Failure;

/// The file. Durations are seconds.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    algorithm: Option<String>,
    /// The algorithm of JWTs for a resource, by resource.
    #[serde(default)]
    algorithms: BTreeMap<String, String>,
    /// The algorithms that registrations of clients name.
    #[serde(default)]
    further_algorithms: Vec<String>,
    #[serde(default)]
    former_issuers: Vec<String>,
    #[serde(default)]
    pub(crate) retired_handle_secrets: Vec<u8>,
    heartbeat_interval: Option<u64>,
    #[serde(default)]
    keys: Keys,
    #[serde(default)]
    lifetimes: Lives,
}

/// Makes a section of durations, and a function that applies those that are given.
macro_rules! section {
    ($name:ident of $target:ty: $($field:ident)+) => {
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct $name {
            $($field: Option<u64>,)+
        }

        impl $name {
            fn applied_to(&self, mut target: $target) -> $target {
                $(
                    if let Some(seconds) = self.$field {
                        target = target.$field(Duration::from_secs(seconds));
                    }
                )+
                target
            }
        }
    };
}

section!(Keys of KeyPolicy: rotation publish_ahead retention jwks_max_age reload max_blind
    clock_skew leeway max_token_life);
section!(Lives of Lifetimes: access_token code refresh_idle grant phantom_jwt adopted_token
    retry_window);

impl Settings {
    pub(crate) fn load(file: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = file else { return Ok(Self::default()) };
        let refused = |why: &dyn std::fmt::Display| {
            Failure::usage(format!("the settings file {} {why}", path.display()))
        };
        let text = std::fs::read_to_string(path)
            .map_err(|error| refused(&format_args!("cannot be read: {error}")))?;
        toml::from_str(&text).map_err(|error| refused(&format_args!("is not valid: {error}")))
    }

    /// The builder with these settings.
    pub(crate) fn apply(&self, builder: IssuerBuilder) -> Result<IssuerBuilder, Failure> {
        let mut builder = builder
            .key_policy(self.keys.applied_to(KeyPolicy::default()))
            .lifetimes(self.lifetimes.applied_to(Lifetimes::default()));
        if let Some(name) = &self.algorithm {
            builder = builder.algorithm(algorithm(name)?);
        }
        for (resource, name) in &self.algorithms {
            builder = builder.algorithm_for(resource, algorithm(name)?);
        }
        for name in &self.further_algorithms {
            builder = builder.further_algorithm(algorithm(name)?);
        }
        if let Some(seconds) = self.heartbeat_interval {
            builder = builder.heartbeat_interval(Duration::from_secs(seconds));
        }
        Ok(self.former_issuers.iter().fold(builder, IssuerBuilder::former_issuer))
    }
}

/// An algorithm by its name in a JWS header.
pub(crate) fn algorithm(name: &str) -> Result<Algorithm, Failure> {
    name.parse().map_err(|error| Failure::usage(format!("the algorithm `{name}`: {error}")))
}
