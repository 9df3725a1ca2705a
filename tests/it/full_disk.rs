//! A disk that is full.

/// `cargo xtask test --embedded` leaves it out by this name.
mod with_postgres {
    use std::error::Error;

    use cloakroom::core::record::{Chain, ChainKey, GrantRecord, TokenRecord};
    use cloakroom::core::revocation::{Revocation, Target};
    use cloakroom::core::store::{
        Advance, ChainUpdate, Lookup, SingleUseId, SingleUseStore as _, Spend, StoreError,
        TokenStore as _, TokenStoreExt as _,
    };
    use cloakroom::core::time::UnixTime;
    use cloakroom::core::{Audience, ClientId, GrantId, Random, Subject, TokenDigest, TokenKind};
    use cloakroom::postgres::PostgresStore;
    use cloakroom::postgres::tokio_postgres::error::{DbError, SqlState};

    use crate::standby::servers::SmallDisk;

    const NOW: UnixTime = UnixTime::from_secs(2_000_000_000);
    const END: UnixTime = UnixTime::from_secs(2_000_086_400);

    fn digest() -> TokenDigest {
        TokenDigest::from_bytes(Random::system().array().unwrap())
    }

    async fn new_grant(store: &PostgresStore) -> GrantRecord {
        let random = Random::system();
        let mut grant = GrantRecord::new(
            GrantId::random(&random).unwrap(),
            ClientId::new("app").unwrap(),
            Subject::user("alice").unwrap(),
            Audience::one("https://orders.example").unwrap(),
            NOW,
            END,
        );
        let key = ChainKey::random(&random).unwrap();
        grant.chain = Some(Chain::new(TokenKind::Refresh, digest(), key, END));
        grant.epoch = store.epoch().await.unwrap();
        grant
    }

    fn token(grant: &GrantRecord) -> TokenRecord {
        TokenRecord::new(digest(), grant, NOW, END)
    }

    /// Moves the chain of the grant on.
    fn next(grant: &mut GrantRecord) -> Advance {
        let chain = grant.chain.as_mut().unwrap();
        let expected = chain.position();
        chain.generation += 1;
        chain.digest = digest();
        let change = ChainUpdate::Move(Box::new(grant.clone()));
        Advance { grant: grant.id, expected, now: NOW, change, tokens: vec![token(grant)] }
    }

    /// Every write, by its number.
    async fn write(
        store: &PostgresStore,
        grant: &mut GrantRecord,
        kind: u32,
    ) -> Result<(), StoreError> {
        match kind {
            0 => {
                let grant = new_grant(store).await;
                let tokens = vec![token(&grant)];
                store.create(grant, tokens).await.map(drop)
            }
            1 => store.advance(next(&mut *grant)).await.map(drop),
            2 => {
                let absent = GrantId::random(&Random::system()).unwrap();
                let revocation = Revocation::new(Target::Grant(absent), NOW, END);
                store.revoke(revocation).await.map(drop)
            }
            3 => store.heartbeat(NOW, END).await,
            _ => {
                let id = SingleUseId::from_bytes(Random::system().array().unwrap());
                store.spend(Spend { id, until: END, now: NOW }).await.map(drop)
            }
        }
    }

    fn is_full(error: &StoreError) -> bool {
        let mut source: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(error) = source {
            if let Some(error) = error.downcast_ref::<DbError>() {
                return *error.code() == SqlState::DISK_FULL;
            }
            source = error.source();
        }
        false
    }

    /// Writes fail, each with its source, and reads go on. When there is room again, the same store works.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn writes_are_outages_until_there_is_room() {
        let Some(disk) = SmallDisk::start().await else {
            eprintln!("only root may mount a small disk: nothing was tested");
            return;
        };
        let store = PostgresStore::connect(&disk.url()).await.unwrap();
        let mut grant = new_grant(&store).await;
        let known = token(&grant);
        let created = store.create(grant.clone(), vec![known.clone()]).await.unwrap();
        assert_eq!(created, cloakroom::core::store::CreateOutcome::Inserted);

        let admin = disk.server.connect().await;
        admin.batch_execute("CREATE TABLE filler (page text) TABLESPACE small").await.unwrap();
        for pages in [128, 1] {
            let fill = format!(
                "INSERT INTO filler SELECT repeat(md5(n::text), 60) FROM generate_series(1, 4 * {pages}) n"
            );
            let full = loop {
                if let Err(error) = admin.batch_execute(&fill).await {
                    break error;
                }
            };
            assert_eq!(full.code(), Some(&SqlState::DISK_FULL), "{full:?}");
        }
        for kind in 0..5 {
            // Pages that are there have some room.
            let error = loop {
                if let Err(error) = write(&store, &mut grant, kind).await {
                    break error;
                }
            };
            assert!(matches!(error, StoreError::Unavailable { .. }), "{kind}: {error:?}");
            assert!(is_full(&error), "{kind}: {error:?}");
        }
        let found = store.find(known.grant, Some(known.digest)).await.unwrap();
        assert!(matches!(&found, Lookup::Found(found) if found.token.is_some()), "{found:?}");

        admin.batch_execute("DROP TABLE filler").await.unwrap();
        let Lookup::Found(found) = store.find(grant.id, None).await.unwrap() else {
            panic!("the grant is gone")
        };
        // The step that failed was not taken.
        grant = (*found.grant).clone();
        for kind in 0..5 {
            write(&store, &mut grant, kind).await.unwrap();
        }
    }
}
