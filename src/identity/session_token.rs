//! Session tokens: what the client holds. The database knows their hash.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use super::secrets::TokenHash;
use super::session::{INACTIVE, Session, SessionId, SessionRepository};
use super::user::UserId;
use crate::db::{Error, Reason, Result, input};

/// 256 bits, as base64url (RFC 4648, section 5) without padding.
const BYTES: usize = 32;
const CHARACTERS: usize = 43;

/// A session's token, as its client gets it: 43 characters of base64url that fit into a cookie or a
/// header as they are.
///
/// It exists once, in what [`create_with_token`] and [`rotate`] return: it can't be cloned, printed or
/// serialised, it is not stored, and its memory is wiped when it is dropped. [`expose`](Self::expose)
/// is for the response that hands it over; what is copied from there is the application's to guard.
///
/// [`create_with_token`]: crate::SessionRepository::create_with_token
/// [`rotate`]: crate::SessionRepository::rotate
///
/// ```
/// use chancery::{SessionToken, TokenHash};
///
/// let token = SessionToken::generate()?;
/// assert_eq!(token.expose().len(), 43);
/// assert_eq!(format!("{token:?}"), "SessionToken(…)");
/// assert_eq!(TokenHash::of_token(token.expose())?, token.hash());
/// # Ok::<(), chancery::Error>(())
/// ```
///
/// ```compile_fail
/// # let token = chancery::SessionToken::generate().unwrap();
/// let twice = token.clone();
/// ```
pub struct SessionToken(Zeroizing<String>);

impl SessionToken {
    /// A new one, from the system's generator.
    ///
    /// # Errors
    ///
    /// [`Error::NoRandomness`] when the system has none to give.
    pub fn generate() -> Result<Self> {
        let mut bytes = Zeroizing::new([0; BYTES]);
        getrandom::fill(bytes.as_mut_slice()).map_err(|_| Error::NoRandomness)?;
        // As long as it gets: growing would leave a copy behind.
        let mut text = Zeroizing::new(String::with_capacity(CHARACTERS));
        URL_SAFE_NO_PAD.encode_string(bytes.as_slice(), &mut text);
        Ok(Self(text))
    }

    /// The token itself, for the response that hands it to its client; keep it out of logs.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is stored of it.
    pub fn hash(&self) -> TokenHash {
        hashed(&self.0)
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionToken(…)")
    }
}

/// SHA-256 is enough: 256 random bits can't be guessed, so there is nothing to slow down.
fn hashed(token: &str) -> TokenHash {
    TokenHash::from_digest(&Sha256::digest(token))
}

impl TokenHash {
    /// The hash under which [`create_with_token`](crate::SessionRepository::create_with_token) stores a
    /// token that a client sent: the SHA-256 of its text, in lower-case hex.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::InvalidInput), without the text, when it is no such token: not 43
    /// characters of base64url.
    pub fn of_token(token: &str) -> Result<Self> {
        let mut bytes = [0; BYTES];
        let decoded = URL_SAFE_NO_PAD.decode_slice(token, &mut bytes);
        bytes.zeroize();
        match decoded {
            Ok(BYTES) => Ok(hashed(token)),
            _ => Err(Error::invalid("token", Reason::Malformed("a session token"))),
        }
    }
}

/// With tokens of the crate's own: [`SessionToken`].
impl SessionRepository<'_> {
    /// Opens a session with a new token: void after `lifetime` at the latest, and before that once it
    /// was not [used](Self::authenticate) for `idle_timeout`. Both are reckoned by the database's clock.
    ///
    /// # Errors
    ///
    /// [`ForeignKey`](crate::Error::ForeignKey) when there is no such user;
    /// [`NotFound`](crate::Error::NotFound) when the user is not active;
    /// [`InvalidInput`](crate::Error::InvalidInput) for a time of more than 100 years or an
    /// `idle_timeout` of less than a microsecond; [`NoRandomness`](crate::Error::NoRandomness).
    pub async fn create_with_token(
        self,
        user_id: UserId,
        lifetime: Duration,
        idle_timeout: Option<Duration>,
    ) -> Result<(SessionToken, Session)> {
        let lifetime = input::seconds("lifetime", lifetime)?;
        let idle = idle_timeout.map(|idle| input::seconds("idle_timeout", idle)).transpose()?;
        if idle.is_some_and(|idle| idle < 1e-6) {
            return Err(Error::invalid("idle_timeout", Reason::Empty));
        }
        let token = SessionToken::generate()?;
        let token_hash = token.hash();
        let session = sqlx::query_as!(
            Session,
            "insert into sessions (id, user_id, token_hash, expires_at, absolute_expires_at, idle_timeout)
             select $1, $2, $3,
                    least(now() + make_interval(secs => $4), now() + make_interval(secs => $5)),
                    now() + make_interval(secs => $4), make_interval(secs => $5)
              where not exists (select from users u where u.id = $2 and not u.is_active)
             returning id, user_id, token_hash, expires_at, created_at",
            SessionId::new().as_uuid(),
            user_id.as_uuid(),
            token_hash.expose(),
            lifetime,
            idle,
        )
        .fetch_optional(self.conn)
        .await?
        .ok_or(INACTIVE)?;
        Ok((token, session))
    }

    /// Returns the session that a client's token opens, and notes that it was used, where it has an idle
    /// timeout. None for every text that opens none: unknown, expired, rotated away, of a user that is not
    /// active, malformed (for which the server is not asked).
    ///
    /// Being used is written down when a tenth of the idle timeout has passed since it last was, so most
    /// calls write nothing; a session may end that much sooner than its last use and the idle timeout
    /// say.
    pub async fn authenticate(self, token: &str) -> Result<Option<Session>> {
        let Ok(token_hash) = TokenHash::of_token(token) else { return Ok(None) };
        Ok(sqlx::query_as!(
            Session,
            r#"with used as (
                   update sessions
                      set expires_at = least(absolute_expires_at, now() + idle_timeout)
                    where token_hash = $1 and expires_at > now()
                      and exists (select from users u where u.id = sessions.user_id and u.is_active)
                      and expires_at
                          < least(absolute_expires_at, now() + idle_timeout) - idle_timeout / 10
                   returning id, expires_at
               )
               select s.id, s.user_id, s.token_hash,
                      coalesce(u.expires_at, s.expires_at) as "expires_at!", s.created_at
                 from sessions s
                 join users o on o.id = s.user_id and o.is_active
                 left join used u on u.id = s.id
                where s.token_hash = $1 and s.expires_at > now()"#,
            token_hash.expose(),
        )
        .fetch_optional(self.conn)
        .await?)
    }

    /// Gives the session a new token, and counts as using it; the old one opens nothing from then on.
    /// None as in [`authenticate`](Self::authenticate). Of several at once with one token, one gets a
    /// new token and the others none.
    ///
    /// Call it when what the session may do changes, such as after signing in again.
    ///
    /// # Errors
    ///
    /// [`NoRandomness`](crate::Error::NoRandomness).
    pub async fn rotate(self, token: &str) -> Result<Option<(SessionToken, Session)>> {
        let Ok(old) = TokenHash::of_token(token) else { return Ok(None) };
        let new = SessionToken::generate()?;
        let new_hash = new.hash();
        let session = sqlx::query_as!(
            Session,
            "update sessions
                set token_hash = $2,
                    expires_at = coalesce(least(absolute_expires_at, now() + idle_timeout), expires_at)
              where token_hash = $1 and expires_at > now()
                and exists (select from users u where u.id = sessions.user_id and u.is_active)
             returning id, user_id, token_hash, expires_at, created_at",
            old.expose(),
            new_hash.expose(),
        )
        .fetch_optional(self.conn)
        .await?;
        Ok(session.map(|session| (new, session)))
    }

    /// Ends the session that a token opens. Says whether there was one.
    /// [`delete_by_user`](Self::delete_by_user) ends all of a user's.
    pub async fn revoke(self, token: &str) -> Result<bool> {
        let Ok(token_hash) = TokenHash::of_token(token) else { return Ok(false) };
        let done = sqlx::query!(
            "delete from sessions where token_hash = $1 and expires_at > now()",
            token_hash.expose(),
        )
        .execute(self.conn)
        .await?;
        Ok(done.rows_affected() > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_thousand_tokens_differ_and_are_of_one_form() {
        let tokens: Vec<_> = (0..1000).map(|_| SessionToken::generate().unwrap()).collect();
        let texts: HashSet<&str> = tokens.iter().map(SessionToken::expose).collect();
        assert_eq!(texts.len(), 1000);
        for text in texts {
            assert_eq!(text.len(), CHARACTERS);
            assert!(
                text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)),
                "{text}"
            );
        }
        // Every bit is drawn: none has the same value in all of them.
        let (all, any) =
            tokens.iter().fold(([255_u8; BYTES], [0_u8; BYTES]), |(all, any), token| {
                let bits: [u8; BYTES] =
                    URL_SAFE_NO_PAD.decode(token.expose()).unwrap().try_into().unwrap();
                (
                    std::array::from_fn(|i| all[i] & bits[i]),
                    std::array::from_fn(|i| any[i] | bits[i]),
                )
            });
        assert_eq!((all, any), ([0; BYTES], [255; BYTES]));
    }

    #[test]
    fn the_hash_is_the_sha_256_of_the_text() {
        // echo -n AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA | sha256sum
        let known = TokenHash::of_token(&"A".repeat(CHARACTERS)).unwrap();
        assert_eq!(
            known.expose(),
            "0f007385b6f9d4b7eeb2748605afe1a984a0a3bfa3f014d09e2a784ce9e5cd1a"
        );
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_quoted() {
        let token = "A".repeat(CHARACTERS);
        for wrong in [
            "",
            "c4n4ry",
            &token[1..],
            &format!("{token}A"),
            &format!("{token}="),
            &format!(" {token}"),
            &format!("{}+", &token[1..]),
            // Bits that no token has: a second text for the same bytes.
            &format!("{}B", &token[1..]),
            &"ä".repeat(CHARACTERS),
            &"A".repeat(100_000),
            "\0",
        ] {
            let error = TokenHash::of_token(wrong).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(wrong.len() < 2 || !shown.contains(wrong), "{shown}");
        }
    }
}
