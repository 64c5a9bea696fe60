use std::{
    sync::mpsc::{Receiver, Sender, TryRecvError, channel},
    time::Duration,
};

use tokio::task::{JoinHandle, yield_now};

use super::*;

fn headers(login: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let basic = format!("Basic {}", STANDARD.encode(login));
    headers.insert(AUTHORIZATION, basic.parse().unwrap());
    headers
}

fn source(last: u8) -> Source {
    std::net::IpAddr::from([192, 0, 2, last]).into()
}

#[tokio::test]
async fn only_the_right_password_is_admitted_also_the_second_time() {
    let hash = bcrypt::hash("sec:ret", 4).unwrap();
    let auth = Arc::new(Auth::new([("alice".to_owned(), hash)].into()).unwrap());
    let from = source(1);
    for _ in 0..2 {
        assert!(auth.admits(&headers("alice:sec:ret"), from).await);
        for wrong in ["alice:", "alice:sec", ":sec:ret", "bob:sec:ret", "alice", "alic:esec:ret"] {
            assert!(!auth.admits(&headers(wrong), from).await, "{wrong}");
        }
    }
    let basic = format!("basic {}", STANDARD.encode("alice:sec:ret"));
    for (header, admitted) in [
        (&basic[..], true),
        ("Basic", false),
        ("Basic !!!", false),
        ("Bearer x", false),
        ("Basic /w==", false),
        ("", false),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, header.parse().unwrap());
        assert_eq!(auth.admits(&headers, from).await, admitted, "{header}");
    }
    assert!(!auth.admits(&HeaderMap::new(), from).await);
    assert_eq!(auth.remembered().len(), 1);
}

#[tokio::test]
async fn without_users_everybody_is_admitted() {
    let auth = Arc::new(Auth::new(BTreeMap::new()).unwrap());
    assert!(auth.admits(&HeaderMap::new(), source(1)).await);
}

#[test]
fn a_user_that_does_not_exist_takes_as_long_as_one_that_does() {
    let hash = |cost| bcrypt::hash("x", cost).unwrap();
    let users = [("a".to_owned(), hash(4)), ("b".to_owned(), hash(5))];
    let auth = Auth::new(users.into()).unwrap();
    assert_eq!(auth.nobody.parse::<bcrypt::HashParts>().unwrap().get_cost(), 5);
    assert!(bcrypt::verify("x", &auth.nobody).is_ok(), "it can be checked");
}

/// Longer than anything should take, so that a hang is a failure.
const PATIENCE: Duration = Duration::from_mins(1);

/// A check that says when it begins and ends when it is told to; "right" is right.
struct Checks {
    began: Receiver<Vec<u8>>,
    end: Sender<()>,
}

impl Checks {
    /// The password of the check that begins next. It waits without holding up the runtime's thread.
    async fn next(self) -> (Vec<u8>, Self) {
        let next = move || (self.began.recv_timeout(PATIENCE).unwrap(), self);
        let next = tokio::task::spawn_blocking(next);
        next.await.unwrap()
    }
}

fn slow() -> (Arc<Auth>, Checks) {
    let (starts, began) = channel();
    let (end, ends) = channel();
    let ends = Mutex::new(ends);
    let verify = move |password: &[u8], _: &str| {
        // Nobody waits for it at the end of a test.
        let _ = starts.send(password.to_vec());
        let _ = ends.lock().unwrap().recv();
        password == b"right"
    };
    let auth = Auth::with([("alice".to_owned(), String::new())].into(), Box::new(verify)).unwrap();
    (Arc::new(auth), Checks { began, end })
}

fn asks(auth: &Arc<Auth>, password: &str, from: u8) -> JoinHandle<bool> {
    let (auth, headers) = (Arc::clone(auth), headers(&format!("alice:{password}")));
    tokio::spawn(async move { auth.admits(&headers, source(from)).await })
}

async fn answer(asked: JoinHandle<bool>) -> bool {
    tokio::time::timeout(PATIENCE, asked).await.expect("no answer").unwrap()
}

/// Lets every task run until it waits.
async fn settle() {
    for _ in 0..100 {
        yield_now().await;
    }
}

#[tokio::test]
async fn a_check_that_has_begun_holds_its_turn_when_its_client_hangs_up() {
    let (auth, checks) = slow();
    let first = asks(&auth, "first", 1);
    let (_, checks) = checks.next().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let others: Vec<_> = (1..50).map(|from| asks(&auth, "other", from)).collect();
    settle().await;
    assert_eq!(checks.began.try_recv(), Err(TryRecvError::Empty), "one at a time");
    others.iter().for_each(JoinHandle::abort);
    settle().await;
    let rightful = asks(&auth, "right", 1);
    checks.end.send(()).unwrap();
    let (second, checks) = checks.next().await;
    assert_eq!(second, b"right", "who has hung up meanwhile is not checked");
    checks.end.send(()).unwrap();
    assert!(answer(rightful).await);
}

#[tokio::test]
async fn a_check_whose_client_has_hung_up_is_remembered() {
    let (auth, checks) = slow();
    let impatient = asks(&auth, "right", 1);
    let (_, checks) = checks.next().await;
    impatient.abort();
    let again = asks(&auth, "right", 1);
    settle().await;
    checks.end.send(()).unwrap();
    assert!(answer(again).await);
    assert_eq!(checks.began.try_recv(), Err(TryRecvError::Empty), "it was not checked twice");
}

#[tokio::test]
async fn who_is_remembered_waits_for_nobody() {
    let (auth, checks) = slow();
    let rightful = asks(&auth, "right", 1);
    let (_, checks) = checks.next().await;
    checks.end.send(()).unwrap();
    assert!(answer(rightful).await);
    let flood: Vec<_> = (1..50).map(|from| asks(&auth, "wrong", from)).collect();
    let (_, checks) = checks.next().await;
    assert!(answer(asks(&auth, "right", 1)).await, "while another is checked");
    flood.iter().for_each(JoinHandle::abort);
    checks.end.send(()).unwrap();
}

#[tokio::test]
async fn a_source_with_many_passwords_delays_others_by_one() {
    let (auth, checks) = slow();
    let flood: Vec<_> = (0..50).map(|_| asks(&auth, "wrong", 1)).collect();
    let (_, mut checks) = checks.next().await;
    settle().await;
    let stranger = asks(&auth, "right", 2);
    settle().await;
    let mut order = Vec::new();
    while order.last().is_none_or(|last| last != b"right") {
        checks.end.send(()).unwrap();
        let (password, left) = checks.next().await;
        order.push(password);
        checks = left;
    }
    assert!(order.len() <= 2, "{} were checked before", order.len() - 1);
    checks.end.send(()).unwrap();
    assert!(answer(stranger).await);
    flood.iter().for_each(JoinHandle::abort);
    // One more may have begun.
    let _ = checks.end.send(());
}
