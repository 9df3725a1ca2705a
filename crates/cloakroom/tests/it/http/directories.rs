//! Directories over another one: they hand on what they are asked.

use std::sync::Arc;

use async_trait::async_trait;
#[cfg(feature = "client-documents")]
use cloakroom::ClientDocuments;
use cloakroom::core::ClientId;
use cloakroom::{Client, ClientDirectory, DirectoryError, RegisteredClients};

/// It knows one client, and takes documents or not.
#[derive(Debug, Clone)]
struct Inner {
    takes_documents: bool,
}

const KNOWN: &str = "https://app.example/known.json";

#[async_trait]
impl ClientDirectory for Inner {
    async fn client(&self, id: &ClientId) -> Result<Option<Arc<Client>>, DirectoryError> {
        let client = || Arc::new(Client::public(KNOWN).build().unwrap());
        Ok((id.as_str() == KNOWN).then(client))
    }

    fn scopes(&self) -> Vec<String> {
        vec!["notes:read".into(), "notes:write".into()]
    }

    fn takes_documents(&self) -> bool {
        self.takes_documents
    }

    async fn count_grant(&self, _: &ClientId) -> Result<bool, DirectoryError> {
        Ok(false)
    }
}

fn over(inner: &Inner) -> Vec<Box<dyn ClientDirectory>> {
    vec![
        Box::new(Arc::new(inner.clone())),
        Box::new(RegisteredClients::new(inner.clone(), |client, _| Some(client))),
    ]
}

#[test]
fn scopes_and_documents_are_those_of_the_inner_directory() {
    for takes_documents in [false, true] {
        let inner = Inner { takes_documents };
        for directory in over(&inner) {
            assert_eq!(directory.scopes(), inner.scopes(), "{directory:?}");
            assert_eq!(directory.takes_documents(), takes_documents, "{directory:?}");
        }
    }
}

#[cfg(feature = "client-documents")]
#[tokio::test]
async fn a_directory_of_documents_counts_no_grants_of_its_own() {
    let inner = Inner { takes_documents: false };
    let directory = ClientDocuments::builder(inner.clone(), |client, _| Some(client));
    let directory = directory.build().unwrap();
    assert_eq!(directory.scopes(), inner.scopes());
    assert!(directory.takes_documents());
    // The inner directory lets none of its clients have a grant.
    for (id, may) in [(KNOWN, false), ("app", false), ("https://app.example/client.json", true)] {
        assert_eq!(directory.count_grant(&ClientId::new(id).unwrap()).await.unwrap(), may, "{id}");
    }
}
