//! The unit of work of a request: begun when it is asked for, ended when the response is known.

use std::fmt;
use std::mem::replace;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::{FromRequest, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::internal;
use crate::db::{Database, Error, UnitOfWork};

/// The layer that [`Tx`] needs: it ends the request's unit of work, as the
/// [module's documentation](crate::web#how-a-requests-unit-of-work-ends) says.
///
/// ```
/// use axum::{Router, middleware};
/// use chancery::{Database, web};
///
/// fn with_units_of_work(routes: Router<Database>, db: Database) -> Router {
///     routes
///         .layer(middleware::from_fn_with_state(db.clone(), web::unit_of_work))
///         .with_state(db)
/// }
/// ```
///
/// A request that extracts no [`Tx`] uses no connection. Where two of these layers are nested, the
/// outer one's unit of work is the request's.
pub async fn unit_of_work(
    State(db): State<Database>,
    mut request: Request,
    next: Next,
) -> Response {
    if request.extensions().get::<Slot>().is_some() {
        return next.run(request).await;
    }
    let slot = Slot(Arc::new(Shared { db, stage: Mutex::new(Stage::Unused) }));
    request.extensions_mut().insert(slot.clone());
    let response = next.run(request).await;
    slot.end(response).await
}

/// Where a request's unit of work is: shared by the layer, the request and its [`Tx`].
///
/// Only the layer commits. So when the client goes away and the layer's future with it, whoever drops
/// the last part rolls back.
#[derive(Clone)]
struct Slot(Arc<Shared>);

struct Shared {
    db: Database,
    stage: Mutex<Stage>,
}

// One for each request that has asked for it, in the place that the request has anyway.
#[expect(clippy::large_enum_variant)]
enum Stage {
    /// Nothing was asked for yet.
    Unused,
    /// A [`Tx`] has it, or is getting it.
    Lent,
    /// Begun, and nobody uses it.
    Idle(UnitOfWork),
    /// No more: the response is decided, or it was dropped by a panic.
    Ended,
}

impl Slot {
    fn stage(&self) -> MutexGuard<'_, Stage> {
        // Nothing panics while it is locked.
        self.0.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn lend(self) -> Result<Tx, TxRejection> {
        let idle = {
            let mut stage = self.stage();
            match *stage {
                Stage::Lent => return Err(TxRejection::InUse),
                Stage::Ended => return Err(TxRejection::Ended),
                Stage::Unused | Stage::Idle(_) => replace(&mut *stage, Stage::Lent),
            }
        };
        // From here on its drop gives the slot back, also when this future is dropped.
        let mut tx = Tx { slot: self, unit: None };
        tx.unit = Some(match idle {
            Stage::Idle(unit) => unit,
            _ => tx.slot.0.db.begin().await.map_err(TxRejection::Begin)?,
        });
        Ok(tx)
    }

    async fn end(self, response: Response) -> Response {
        let success = !(response.status().is_client_error() || response.status().is_server_error());
        let stage = replace(&mut *self.stage(), Stage::Ended);
        match stage {
            Stage::Unused => response,
            Stage::Idle(unit) if success => match unit.commit().await {
                Ok(()) => response,
                Err(error) => error.into_response(),
            },
            Stage::Idle(unit) => {
                if let Err(error) = unit.rollback().await {
                    tracing::debug!(target: "chancery", %error, "the rollback was not confirmed");
                }
                response
            }
            Stage::Lent => {
                tracing::error!(
                    target: "chancery",
                    event = "web.tx_outlived_handler",
                    "a Tx outlived its handler, so nothing of it is stored: drop it before the \
                     handler returns; for streams and tasks take State<Database> (see the docs of \
                     chancery::web)"
                );
                if success { internal() } else { response }
            }
            Stage::Ended => {
                tracing::error!(
                    target: "chancery",
                    event = "web.tx_panicked",
                    "a task panicked with the request's Tx, so nothing of it is stored"
                );
                if success { internal() } else { response }
            }
        }
    }
}

/// The unit of work of the request, as an extractor. Needs the layer [`unit_of_work`].
///
/// It dereferences to [`UnitOfWork`]: the repositories, [`executor`](UnitOfWork::executor) and
/// [`transaction`](UnitOfWork::transaction) (a savepoint) are at hand. It can't be committed by hand:
/// the response decides, see [the module](crate::web#how-a-requests-unit-of-work-ends).
///
/// It begins when it is extracted and must be dropped before the handler returns, which happens by
/// itself unless it is moved somewhere. Extracted again after that (by a middleware, then by the
/// handler), it is the same unit of work; two at a time are refused, because they would be two
/// connections for one request, and a pool full of requests that wait for their second one.
///
/// A handler with a body takes [`TxAfter`]: extractors run in order and the body comes last, so with
/// this one a slow upload would occupy a connection. For the same reason it stands after the
/// extractors that may refuse the request.
///
/// ```no_run
/// use axum::extract::Path;
/// use axum::http::StatusCode;
/// use chancery::web::Tx;
/// use chancery::{Error, UserId};
///
/// async fn sign_out_everywhere(Path(id): Path<UserId>, mut tx: Tx) -> chancery::Result<StatusCode> {
///     tx.users().get_by_id(id).await?.ok_or(Error::NotFound("user"))?;
///     tx.sessions().delete_by_user(id).await?;
///     Ok(StatusCode::NO_CONTENT)
/// }
/// ```
pub struct Tx {
    slot: Slot,
    // None only while it begins and in `drop`.
    unit: Option<UnitOfWork>,
}

const BEGUN: &str = "a Tx is handed out after its unit of work has begun";

impl Deref for Tx {
    type Target = UnitOfWork;

    fn deref(&self) -> &UnitOfWork {
        self.unit.as_ref().expect(BEGUN)
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut UnitOfWork {
        self.unit.as_mut().expect(BEGUN)
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        let unit = self.unit.take();
        let mut stage = self.slot.stage();
        if matches!(*stage, Stage::Lent) {
            *stage = match unit {
                // A task that the handler waits for may panic, and the handler answer all the same:
                // what was half done must not be stored.
                Some(_) if std::thread::panicking() => Stage::Ended,
                Some(unit) => Stage::Idle(unit),
                None => Stage::Unused,
            };
        }
    }
}

impl fmt::Debug for Tx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx").finish_non_exhaustive()
    }
}

impl<S: Sync> FromRequestParts<S> for Tx {
    type Rejection = TxRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, TxRejection> {
        let slot = parts.extensions.get::<Slot>().cloned().ok_or(TxRejection::LayerMissing)?;
        slot.lend().await
    }
}

/// The body, read to its end, and then the request's unit of work: [`Tx`] for handlers with a body.
///
/// A client that sends its body slowly, or a body that is refused, occupies no connection.
///
/// ```no_run
/// use axum::Json;
/// use chancery::web::TxAfter;
/// use chancery::{NewUser, User};
///
/// async fn sign_up(
///     TxAfter(Json(email), mut tx): TxAfter<Json<String>>,
/// ) -> chancery::Result<Json<User>> {
///     Ok(Json(tx.users().create(NewUser::new(email)).await?))
/// }
/// ```
#[derive(Debug)]
pub struct TxAfter<T>(
    /// What the body was read as.
    pub T,
    /// The unit of work.
    pub Tx,
);

impl<S: Sync, T: FromRequest<S> + Send> FromRequest<S> for TxAfter<T> {
    /// That of the body's extractor, or [`TxRejection`].
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let slot = request.extensions().get::<Slot>().cloned();
        let slot = slot.ok_or_else(|| TxRejection::LayerMissing.into_response())?;
        let body = T::from_request(request, state).await.map_err(IntoResponse::into_response)?;
        let tx = slot.lend().await.map_err(IntoResponse::into_response)?;
        Ok(Self(body, tx))
    }
}

/// Why there is no [`Tx`]. All but [`Begin`](Self::Begin) are mistakes in the program: they answer
/// 500, and the log says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TxRejection {
    /// The layer is not installed on this route.
    #[error(
        "the layer that ends units of work is missing on this route: add \
         .layer(axum::middleware::from_fn_with_state(db, chancery::web::unit_of_work)) to its router"
    )]
    LayerMissing,
    /// Another [`Tx`] of this request is still there.
    #[error("another Tx of this request is in use: a request has one unit of work, pass it on")]
    InUse,
    /// The request's unit of work has ended already.
    #[error("the unit of work of this request has ended: its response was decided, or it panicked")]
    Ended,
    /// It could not begin; answered as [`status`](crate::web::status) says.
    #[error(transparent)]
    Begin(Error),
}

impl IntoResponse for TxRejection {
    fn into_response(self) -> Response {
        if let Self::Begin(error) = self {
            return error.into_response();
        }
        tracing::error!(target: "chancery", event = "web.tx_rejected", error = %self, "answered 500");
        internal()
    }
}
