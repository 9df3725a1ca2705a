//! The stores of one check.

use std::sync::Arc;

use cloakroom_core::GrantId;
use cloakroom_core::keys::KeyStore;
use cloakroom_core::store::TokenStore;

use crate::Factory;
use crate::database::{Database, Failing, Instance};
use crate::report::NotOffered;
use crate::story::{Story, Told};

/// The stores of one check. It records their operations for the report.
#[derive(Debug, Clone)]
pub struct Context {
    factory: Arc<dyn Factory>,
    story: Story,
}

impl Context {
    pub(crate) fn new(factory: Arc<dyn Factory>) -> Self {
        Self { factory, story: Story::default() }
    }

    /// A new, empty token store.
    pub(crate) async fn tokens(&self) -> Arc<dyn TokenStore> {
        Arc::new(Told { story: self.story(), inner: self.factory.tokens().await })
    }

    /// A new, empty key store.
    pub(crate) async fn keys(&self) -> Arc<dyn KeyStore> {
        Arc::new(Told { story: self.story(), inner: self.factory.keys().await })
    }

    /// The largest size of an identifier, in bytes.
    pub(crate) fn max_id_bytes(&self) -> usize {
        self.factory.max_id_bytes()
    }

    /// The largest size of the name of a check value, in bytes.
    pub(crate) fn max_name_bytes(&self) -> usize {
        self.factory.max_name_bytes()
    }

    /// A new, empty database and its first instance, if the factory offers one.
    pub(crate) async fn database(&self) -> Result<(Bench, Instance), NotOffered> {
        let database = self.factory.database().await.ok_or(NotOffered("a database"))?;
        let bench = Bench { database, story: self.story() };
        let first = bench.told("the first instance", bench.database.open().await);
        Ok((bench, first))
    }

    pub(crate) fn story(&self) -> Story {
        self.story.clone()
    }
}

impl From<&Context> for Story {
    fn from(context: &Context) -> Self {
        context.story()
    }
}

/// A database. Each of its methods ends the check if the factory does not offer it.
#[derive(Debug)]
pub(crate) struct Bench {
    database: Arc<dyn Database>,
    story: Story,
}

impl Bench {
    pub(crate) async fn another(&self) -> Result<Instance, NotOffered> {
        let another = self.database.another().await.ok_or(NotOffered("a second instance"))?;
        Ok(self.told("another instance", another))
    }

    pub(crate) async fn restart(&self) -> Result<Instance, NotOffered> {
        let restarted = self.database.restart().await.ok_or(NotOffered("a restart"))?;
        Ok(self.told("a restart", restarted))
    }

    pub(crate) async fn fail(&self, failing: Failing) -> Result<(), NotOffered> {
        if !self.database.fail(failing).await {
            return Err(NotOffered(match failing {
                Failing::After(0) => "failures of the driver",
                Failing::After(_) => "failures of the driver half-way",
                Failing::AnswersLost => "answers that are lost",
            }));
        }
        self.story.tell(format!("— the driver fails: {failing:?} —"));
        Ok(())
    }

    pub(crate) async fn heal(&self) {
        self.database.heal().await;
        self.story.tell("— the driver works again —");
    }

    pub(crate) async fn damage(&self, grant: GrantId) -> Result<(), NotOffered> {
        if !self.database.damage(grant).await {
            return Err(NotOffered("damage to a row"));
        }
        self.story.tell(format!("— the row of {grant:?} is damaged —"));
        Ok(())
    }

    /// The instance, with its operations recorded.
    fn told(&self, what: &str, instance: Instance) -> Instance {
        self.story.tell(format!("— {what} —"));
        Instance {
            tokens: Arc::new(Told { story: self.story.clone(), inner: instance.tokens }),
            keys: Arc::new(Told { story: self.story.clone(), inner: instance.keys }),
        }
    }
}
