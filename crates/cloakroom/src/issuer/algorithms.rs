//! Which algorithm signs the JWTs of which client for which resource.

use cloakroom_core::Audience;
use cloakroom_jwt::Algorithm;

use crate::client::Client;
use crate::client::uris::resource_fault;
use crate::error::BuildError;
use crate::issuer::checks::refused;

/// The algorithms that an issuer signs with. Each has a ring of keys.
#[derive(Debug, Clone, Default)]
pub(crate) struct SigningAlgorithms {
    /// That of the main ring.
    pub(crate) main: Algorithm,
    /// Those of the further rings that no resource needs.
    pub(crate) further: Vec<Algorithm>,
    /// The resources whose JWTs have an algorithm of their own.
    pub(crate) resources: Vec<(String, Algorithm)>,
}

/// The resources of one JWT need different algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Different;

impl SigningAlgorithms {
    /// Refuses a resource that has two algorithms, or that no token can name.
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        for (index, (resource, algorithm)) in self.resources.iter().enumerate() {
            if let Some(why) = resource_fault(resource) {
                return Err(refused("algorithm_for", format!("`{resource}`: {why}")));
            }
            let mut before = self.resources[..index].iter();
            let other = before.find(|(other, _)| Audience::is_same(other, resource));
            if let Some((_, other)) = other.filter(|(_, other)| other != algorithm) {
                let why = format!("`{resource}` has both {other} and {algorithm}");
                return Err(refused("algorithm_for", why));
            }
        }
        Ok(())
    }

    /// Those of all rings, that of the main ring first.
    pub(crate) fn rings(&self) -> impl Iterator<Item = Algorithm> {
        let resources = self.resources.iter().map(|(_, algorithm)| algorithm);
        std::iter::once(&self.main).chain(&self.further).chain(resources).copied()
    }

    /// Why JWTs of this client cannot be signed, if it names an algorithm without a ring.
    pub(crate) fn fault_of(&self, client: &Client) -> Option<String> {
        let algorithm = client.jwt_algorithm()?;
        if self.rings().any(|known| known == algorithm) {
            return None;
        }
        Some(format!(
            "the client `{}` has JWTs of {algorithm}, and the issuer has no keys for it: add them \
             with `further_algorithm`",
            client.id()
        ))
    }

    /// The algorithm of JWTs for this resource that a client gets which names `of_client`; `None` for that
    /// of the main ring. The resource comes first: it must be able to check the signature.
    fn of(&self, resource: &str, of_client: Option<Algorithm>) -> Option<Algorithm> {
        let found = self.resources.iter().find(|(known, _)| Audience::is_same(known, resource));
        found.map(|(_, algorithm)| *algorithm).or(of_client)
    }

    /// Like [`of`](Self::of), for a JWT for all of these resources.
    pub(crate) fn of_all(
        &self,
        audience: &Audience,
        of_client: Option<Algorithm>,
    ) -> Result<Option<Algorithm>, Different> {
        let mut all = audience.iter().map(|resource| self.of(resource, of_client));
        let first = all.next().flatten();
        let same =
            |other: Option<Algorithm>| other.unwrap_or(self.main) == first.unwrap_or(self.main);
        if all.all(same) { Ok(first) } else { Err(Different) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "https://old.example";
    const NEW: &str = "https://new.example";

    #[test]
    fn a_resource_comes_before_a_client_and_a_client_before_the_main_ring() {
        let algorithms = SigningAlgorithms {
            main: Algorithm::Es256,
            further: vec![Algorithm::EdDsa],
            resources: vec![(OLD.to_owned(), Algorithm::Rs256)],
        };
        let of = |resources: &[&str], client| {
            algorithms.of_all(&Audience::new(resources.iter().copied()).unwrap(), client)
        };
        assert_eq!(of(&[OLD], Some(Algorithm::EdDsa)), Ok(Some(Algorithm::Rs256)));
        assert_eq!(of(&[NEW], Some(Algorithm::EdDsa)), Ok(Some(Algorithm::EdDsa)));
        assert_eq!(of(&[NEW], None), Ok(None));
        assert_eq!(of(&[OLD, NEW], None), Err(Different));
        assert_eq!(of(&[NEW, OLD], Some(Algorithm::EdDsa)), Err(Different));
        // What the client names makes them the same.
        assert_eq!(of(&[OLD, NEW], Some(Algorithm::Rs256)), Ok(Some(Algorithm::Rs256)));
    }

    /// The main ring's algorithm is the same whether it is named or not.
    #[test]
    fn the_algorithm_of_the_main_ring_may_be_named() {
        let algorithms = SigningAlgorithms {
            main: Algorithm::Es256,
            further: Vec::new(),
            resources: vec![(OLD.to_owned(), Algorithm::Es256)],
        };
        let both = Audience::new([OLD, NEW]).unwrap();
        assert!(algorithms.of_all(&both, None).is_ok());
        assert!(algorithms.of_all(&both, Some(Algorithm::Es256)).is_ok());
    }
}
