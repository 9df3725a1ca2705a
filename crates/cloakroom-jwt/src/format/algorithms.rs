//! Which algorithm signs the JWTs for which resource.

use std::sync::Arc;

use cloakroom_core::Audience;

use crate::key::algorithm::Algorithm;

/// Resources whose JWTs are signed with another algorithm than that of the main ring.
#[derive(Debug, Clone, Default)]
pub(crate) struct ResourceAlgorithms(Arc<Vec<(String, Algorithm)>>);

impl ResourceAlgorithms {
    pub(crate) fn set(&mut self, resource: &str, algorithm: Algorithm) {
        let all = Arc::make_mut(&mut self.0);
        all.retain(|(known, _)| !Audience::is_same(known, resource));
        all.push((resource.to_owned(), algorithm));
    }

    /// The algorithm for this resource; `None` for that of the main ring.
    pub(crate) fn of(&self, resource: &str) -> Option<Algorithm> {
        let found = self.0.iter().find(|(known, _)| Audience::is_same(known, resource));
        found.map(|(_, algorithm)| *algorithm)
    }

    /// The algorithm for all of these resources; `Err` if they need different ones.
    pub(crate) fn of_all(&self, audience: &Audience) -> Result<Option<Algorithm>, Different> {
        let mut algorithms = audience.iter().map(|resource| self.of(resource));
        let first = algorithms.next().flatten();
        if algorithms.any(|other| other != first) {
            return Err(Different);
        }
        Ok(first)
    }
}

/// The resources of one JWT need different algorithms.
#[derive(Debug, thiserror::Error)]
#[error("the resources of the token need JWTs of different algorithms: ask for one at a time")]
pub(crate) struct Different;
