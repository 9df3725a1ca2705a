use std::sync::Arc;

use cloakroom_memory::MemoryStore;

use super::*;

async fn run(store: &Arc<MemoryStore>, plan: &Plan) -> Vec<Outcome> {
    let tasks: Vec<_> = plan
        .all()
        .map(|plan| {
            let store = Arc::clone(store);
            tokio::spawn(async move { contend(&*store, &plan).await.to_string() })
        })
        .collect();
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.push(task.await.unwrap().parse().unwrap());
    }
    outcomes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tasks_in_the_place_of_processes_are_judged_right() {
    let store = Arc::new(MemoryStore::new());
    for seed in 1..=2 {
        let plan = Plan::new(seed, 5);
        let outcomes = run(&store, &plan).await;
        judge(&*store, &plan, &outcomes).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_does_not_fit_together_is_convicted() {
    let store = Arc::new(MemoryStore::new());
    let plan = Plan { rounds: 6, ..Plan::new(7, 3) };
    let outcomes = run(&store, &plan).await;
    judge(&*store, &plan, &outcomes).await.unwrap();

    let mut twice = outcomes.clone();
    let step = twice.iter().find_map(|outcome| outcome.steps.first().copied()).unwrap();
    twice[1].steps.push(step);

    let mut overwritten = outcomes.clone();
    let steps = overwritten.iter_mut().flat_map(|outcome| &mut outcome.steps);
    for step in steps.filter(|step| step.1 == GENERATIONS) {
        step.2 = TokenDigest::from_bytes([0; 32]);
    }

    let mut two_winners = outcomes.clone();
    two_winners.iter_mut().for_each(|outcome| outcome.inserted = (0..6).collect());

    let mut lost = outcomes.clone();
    lost[0].revoked.push(1);

    // A grant that is alive, said to be older than every revocation.
    let mut escaped = outcomes.clone();
    let user = escaped.iter().find_map(|outcome| outcome.revoked.first().copied()).unwrap();
    let grant = plan.shared(0).unwrap().id;
    let login = Login { grant, user, epoch: Epoch::new(1), is_inserted: true };
    escaped[2].logins.push(login);

    let mut fell = outcomes.clone();
    let (grant, epoch) = (GrantId::from_bytes([0; 16]), Epoch::new(u64::MAX));
    fell[2].logins.push(Login { grant, user: 0, epoch, is_inserted: true });

    let mut told = outcomes.clone();
    told[0].broken = Some((Promise::MaintainRaces.name().to_owned(), "no".to_owned()));

    let missing = outcomes[1..].to_vec();

    for (outcomes, promise) in [
        (twice, Promise::AdvanceOneWinner),
        (overwritten, Promise::AdvanceOneWinner),
        (two_winners, Promise::CreateNeverOverwrites),
        (lost, Promise::LogComplete),
        (escaped, Promise::CreateBarredByOverlap),
        (fell, Promise::CreateLoginAfter),
        (told, Promise::MaintainRaces),
        (missing, Promise::Model),
    ] {
        let failure = judge(&*store, &plan, &outcomes).await.unwrap_err();
        assert_eq!(failure.promise, promise, "{failure}");
    }
}
