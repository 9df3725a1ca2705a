//! Which algorithm signs the JWTs for which resource.

use std::sync::Arc;

use cloakroom_core::Audience;
use cloakroom_core::format::{FormatError, MintContext};

use crate::key::algorithm::{Algorithm, UnknownAlgorithm};

/// Resources whose JWTs are signed with another algorithm than that of the main ring.
#[derive(Debug, Clone, Default)]
pub(crate) struct ResourceAlgorithms(Arc<Vec<(String, Algorithm)>>);

impl ResourceAlgorithms {
    pub(crate) fn set(&mut self, resource: &str, algorithm: Algorithm) {
        let all = Arc::make_mut(&mut self.0);
        all.retain(|(known, _)| !Audience::is_same(known, resource));
        all.push((resource.to_owned(), algorithm));
    }

    /// The algorithm for this resource, else that which the client names; `None` for that of the main ring.
    pub(crate) fn of(&self, resource: &str, of_client: Option<Algorithm>) -> Option<Algorithm> {
        let found = self.0.iter().find(|(known, _)| Audience::is_same(known, resource));
        found.map(|(_, algorithm)| *algorithm).or(of_client)
    }

    /// Like [`of`](Self::of), for all of these resources; `Err` if they need different ones. `main` is the
    /// algorithm of the main ring.
    pub(crate) fn of_all(
        &self,
        audience: &Audience,
        of_client: Option<Algorithm>,
        main: Algorithm,
    ) -> Result<Option<Algorithm>, Different> {
        let mut algorithms = audience.iter().map(|resource| self.of(resource, of_client));
        let first = algorithms.next().flatten();
        if algorithms.any(|other| other.unwrap_or(main) != first.unwrap_or(main)) {
            return Err(Different);
        }
        Ok(first)
    }
}

/// The algorithm that the registration of the client names.
pub(crate) fn of_client(context: &MintContext<'_>) -> Result<Option<Algorithm>, FormatError> {
    let parsed = context.algorithm.map(str::parse).transpose();
    parsed.map_err(|error: UnknownAlgorithm| FormatError::Other(error.into()))
}

/// The resources of one JWT need different algorithms.
#[derive(Debug, thiserror::Error)]
#[error("the resources of the token need JWTs of different algorithms: ask for one at a time")]
pub(crate) struct Different;
