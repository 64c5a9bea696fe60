//! Who may ask: users with passwords that are kept as bcrypt hashes.
//!
//! bcrypt is slow on purpose, so a password that was right is remembered, keyed with what only this
//! process knows: its user is answered at once, whatever others send meanwhile. `turns.rs` says how
//! many passwords are checked at a time.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::header::{AUTHORIZATION, HeaderMap};
use ring::{hmac, rand::SystemRandom};

use super::{connections::Source, turns::Turns};

/// What follows the cost in a hash of nothing in particular, for users that do not exist.
const NOBODY: &str = "$EGdrhbKUv8Oc9vGiXX0HQOxSg445d458Muh7DAHskb6QbtCvdxcie";
/// What a hash costs that says nothing of it.
const USUAL_COST: u32 = 10;

/// Says whether a password has a hash.
type Verify = Box<dyn Fn(&[u8], &str) -> bool + Send + Sync>;

/// Checks passwords.
pub(super) struct Auth {
    users: BTreeMap<String, String>,
    /// The hash for users that do not exist: it takes as long as the slowest of those that do.
    nobody: String,
    key: hmac::Key,
    /// The last right password of each user.
    right: Mutex<BTreeMap<String, hmac::Tag>>,
    turns: Turns,
    verify: Verify,
}

/// What a client says of itself.
struct Login {
    user: String,
    password: Vec<u8>,
}

impl Auth {
    pub(super) fn new(users: BTreeMap<String, String>) -> Result<Self> {
        let verify = |password: &[u8], hash: &str| bcrypt::verify(password, hash).unwrap_or(false);
        Self::with(users, Box::new(verify))
    }

    fn with(users: BTreeMap<String, String>, verify: Verify) -> Result<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| anyhow::anyhow!("the kernel gives no random numbers"))?;
        let cost = |hash: &String| hash.parse::<bcrypt::HashParts>().ok().map(|it| it.get_cost());
        let cost = users.values().filter_map(cost).max().unwrap_or(USUAL_COST);
        let nobody = format!("$2b${cost:02}{NOBODY}");
        Ok(Self { users, nobody, key, right: Mutex::default(), turns: Turns::new(), verify })
    }

    /// Whether who asks may. Where there are no users, everybody may.
    pub(super) async fn admits(self: &Arc<Self>, headers: &HeaderMap, source: Source) -> bool {
        if self.users.is_empty() {
            return true;
        }
        let Some(login) = Login::of(headers) else { return false };
        if self.remembers(&login) {
            return true;
        }
        let turn = self.turns.take(source).await;
        let auth = Arc::clone(self);
        let check = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            // It may have been right for another connection meanwhile.
            auth.remembers(&login) || auth.is_right(&login)
        });
        check.await.unwrap_or(false)
    }

    fn is_right(&self, login: &Login) -> bool {
        let known = self.users.get(&login.user);
        let right = (self.verify)(&login.password, known.unwrap_or(&self.nobody));
        if right && known.is_some() {
            self.remembered().insert(login.user.clone(), self.tag(login));
        }
        right && known.is_some()
    }

    fn remembers(&self, login: &Login) -> bool {
        let tag = self.tag(login);
        self.remembered().get(&login.user).is_some_and(|right| right.as_ref() == tag.as_ref())
    }

    fn remembered(&self) -> MutexGuard<'_, BTreeMap<String, hmac::Tag>> {
        self.right.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The user's length first, so that no two logins have the same.
    fn tag(&self, login: &Login) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&login.user.len().to_le_bytes());
        context.update(login.user.as_bytes());
        context.update(&login.password);
        context.sign()
    }
}

impl Login {
    /// User and password of `Authorization: Basic`.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
        let (scheme, encoded) = value.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = STANDARD.decode(encoded.trim()).ok()?;
        let colon = decoded.iter().position(|&byte| byte == b':')?;
        let user = String::from_utf8(decoded[..colon].to_vec()).ok()?;
        Some(Self { user, password: decoded[colon + 1..].to_vec() })
    }
}

#[cfg(test)]
mod tests;
