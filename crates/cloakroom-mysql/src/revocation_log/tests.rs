mod with_mysql {
    use std::time::Duration;

    use cloakroom_core::store::{Lookup, TokenStore as _};
    use cloakroom_core::{GrantId, Random};

    use super::super::*;

    /// Deletes the row of a grant.
    struct Delete(GrantId);

    impl Operation for Delete {
        type Answer = u64;

        const CONTEXT: &'static str = "deleting a grant";

        async fn run(&self, connection: &mut Connection) -> Result<u64, Failure> {
            let of = vec![binary(self.0.as_bytes())];
            connection.execute("DELETE FROM ~grants WHERE id = ?", of).await
        }
    }

    /// As on a Galera node that lost the transaction in the middle of its second packet.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_missing_beside_entries_that_are_there_is_done_again() {
        let store = crate::test_store::open().await;
        let pool = store.pool();
        let id = GrantId::random(&Random::system()).unwrap();
        let now = UnixTime::from_secs(2_000_000_000);
        let revocation = Revocation::new(Target::Grant(id), now, now + Duration::from_secs(3_600));
        let entry = EntryId::random(&Random::system()).unwrap();
        let append = AppendAll { entries: vec![Append::Revocation(entry, Box::new(revocation))] };
        let written = pool.run(&append).await.unwrap();
        assert_eq!(pool.run(&Delete(id)).await.unwrap(), 1);
        assert!(matches!(store.find(id, None).await.unwrap(), Lookup::Absent));
        let found = pool.run(&append).await.unwrap();
        assert_eq!(found.newest, written.newest, "the entry is not written twice");
        assert!(matches!(store.find(id, None).await.unwrap(), Lookup::Tombstone));
    }
}
