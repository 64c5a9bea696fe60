//! Who may ask: users with passwords that are kept as bcrypt hashes.
//!
//! bcrypt is slow on purpose. One password is checked at a time, on a thread of its own, and one that
//! was right is remembered, keyed with what only this process knows.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::header::{AUTHORIZATION, HeaderMap};
use ring::{hmac, rand::SystemRandom};
use tokio::sync::Semaphore;

/// Right ones that are remembered.
const MOST_REMEMBERED: usize = 100;
/// The hash of nothing in particular, for users that there are not: that must take as long.
const NOBODY: &str = "$2b$10$EGdrhbKUv8Oc9vGiXX0HQOxSg445d458Muh7DAHskb6QbtCvdxcie";

/// Checks passwords.
pub(super) struct Auth {
    users: BTreeMap<String, String>,
    key: hmac::Key,
    right: Mutex<HashSet<Vec<u8>>>,
    turn: Semaphore,
}

impl Auth {
    pub(super) fn new(users: BTreeMap<String, String>) -> Result<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| anyhow::anyhow!("the kernel gives no random numbers"))?;
        Ok(Self { users, key, right: Mutex::default(), turn: Semaphore::new(1) })
    }

    /// Whether who asks may. Where there are no users, everybody may.
    pub(super) async fn admits(self: &Arc<Self>, headers: &HeaderMap) -> bool {
        if self.users.is_empty() {
            return true;
        }
        let Some((user, password)) = credentials(headers) else { return false };
        let known = self.users.get(&user);
        let hash = known.map_or(NOBODY, String::as_str).to_owned();
        let tag = self.tag(&user, &password, &hash);
        if self.remembered().contains(&tag) {
            return true;
        }
        let Ok(_turn) = self.turn.acquire().await else { return false };
        let check = tokio::task::spawn_blocking(move || bcrypt::verify(password, &hash));
        let right = matches!(check.await, Ok(Ok(true))) && known.is_some();
        if right {
            let mut remembered = self.remembered();
            if remembered.len() >= MOST_REMEMBERED {
                remembered.clear();
            }
            remembered.insert(tag);
        }
        right
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashSet<Vec<u8>>> {
        self.right.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lengths first, so that no two have the same.
    fn tag(&self, user: &str, password: &[u8], hash: &str) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [user.as_bytes(), password, hash.as_bytes()] {
            context.update(&part.len().to_le_bytes());
            context.update(part);
        }
        context.sign().as_ref().to_vec()
    }
}

/// User and password of `Authorization: Basic`.
fn credentials(headers: &HeaderMap) -> Option<(String, Vec<u8>)> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim()).ok()?;
    let colon = decoded.iter().position(|&byte| byte == b':')?;
    let user = String::from_utf8(decoded[..colon].to_vec()).ok()?;
    Some((user, decoded[colon + 1..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asks(auth: &Arc<Auth>, header: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, header.parse().unwrap());
        auth.admits(&headers).await
    }

    #[tokio::test]
    async fn only_the_right_password_is_admitted_also_the_second_time() {
        let hash = bcrypt::hash("sec:ret", 4).unwrap();
        let auth = Arc::new(Auth::new([("alice".to_owned(), hash)].into()).unwrap());
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        for _ in 0..2 {
            assert!(asks(&auth, &basic("alice:sec:ret")).await);
            assert!(asks(&auth, &basic("alice:sec:ret").replace("Basic", "basic")).await);
            for wrong in
                ["alice:", "alice:sec", ":sec:ret", "bob:sec:ret", "alice", "alic:esec:ret"]
            {
                assert!(!asks(&auth, &basic(wrong)).await, "{wrong}");
            }
        }
        for nonsense in ["Basic", "Basic !!!", "Bearer x", "Basic /w==", ""] {
            assert!(!asks(&auth, nonsense).await, "{nonsense}");
        }
        assert!(!auth.admits(&HeaderMap::new()).await);
        assert_eq!(auth.remembered().len(), 1);
    }

    #[tokio::test]
    async fn without_users_everybody_is_admitted() {
        let auth = Arc::new(Auth::new(BTreeMap::new()).unwrap());
        assert!(auth.admits(&HeaderMap::new()).await);
    }
}
