//! Messages. Their order is `(created_at, id)`: those of one transaction share the time, and the
//! identifiers keep the order in which they were made.

use chrono::{DateTime, Utc};
use futures_core::Stream;
use serde::Serialize;
use serde_json::Value;
use sqlx::types::Json;

use super::conversation::ConversationId;
use crate::db::id::{debug_fields, id, text_enum};
use crate::db::owner::by_owner;
use crate::db::page::{List, limit_offset};
use crate::db::{MAX_PAGE_SIZE, Page, PageRequest, Result, input, rows};
use crate::identity::UserId;
use crate::repositories::{Access, FromJson, of_row, owned_by, repository};

id!(
    /// Identifies a [`Message`].
    MessageId
);

text_enum!(
    /// Who wrote a message.
    Role {
        /// The person.
        User = "user",
        /// The model.
        Assistant = "assistant",
        /// The application: instructions to the model.
        System = "system",
    }
);

/// A message. Its metadata is a [`Value`] unless it is read as a type of the caller's:
/// [`MessageRepository::json_as`].
#[derive(Clone, PartialEq, Serialize, sqlx::FromRow)]
#[non_exhaustive]
pub struct Message<J = Value> {
    /// Its identifier.
    pub id: MessageId,
    /// Where it was written.
    pub conversation_id: ConversationId,
    /// Whose conversation that is.
    pub user_id: UserId,
    /// Who wrote it.
    pub role: Role,
    /// What it says.
    pub content: String,
    /// What the application noted about it, such as the chunks that an answer cites.
    #[sqlx(json)]
    pub metadata: J,
    /// When it was written.
    pub created_at: DateTime<Utc>,
}

debug_fields!(Message<J> { id, conversation_id, user_id, role, created_at });

of_row!(Message { id, conversation_id, user_id, role, content, created_at } metadata);

repository!(
    /// Messages: [`Database::messages`](crate::Database::messages).
    MessageRepository<J>
);

owned_by!(MessageRepository<J>);

impl<'c, A: Access, J: FromJson> MessageRepository<'c, A, J> {
    /// The message with this identifier.
    pub async fn get_by_id(self, id: MessageId) -> Result<Option<Message<J>>> {
        by_owner!(
            self.conn.owner(),
            query_as!(
                Message::<Json<J>>,
                r#"select id, conversation_id, user_id, role, content,
                          metadata as "metadata: Json<J>", created_at
                     from messages
                    where id = $1"#
                    + owned(" and user_id = $2"),
                id.as_uuid(),
            )
            .map(Message::of_row)
                => |statement| rows::one(self.conn.repeatable(), "messages", statement).await
        )
    }

    /// A conversation's messages, oldest first. For long conversations use
    /// [`page_by_conversation`](Self::page_by_conversation): an offset reads what it skips.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::Error::InvalidInput) for a limit outside of 0 to [`MAX_PAGE_SIZE`] or a
    /// negative offset.
    pub async fn list_by_conversation(
        self,
        conversation_id: ConversationId,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<Message<J>>> {
        let (limit, offset) = limit_offset(limit, offset)?;
        by_owner!(
            self.conn.owner(),
            query_as!(
                Message::<Json<J>>,
                r#"select id, conversation_id, user_id, role, content,
                          metadata as "metadata: Json<J>", created_at
                     from messages
                    where conversation_id = $1"#
                    + owned(" and user_id = $4")
                    + " order by created_at, id limit $2 offset $3",
                conversation_id.as_uuid(),
                limit,
                offset,
            )
            .map(Message::of_row)
                => |statement| rows::all(self.conn.repeatable(), "messages", statement).await
        )
    }

    /// The last `n` messages of a conversation, oldest first: what a model is given.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::Error::InvalidInput) for an `n` outside of 0 to [`MAX_PAGE_SIZE`].
    pub async fn get_last_n(
        self,
        conversation_id: ConversationId,
        n: i64,
    ) -> Result<Vec<Message<J>>> {
        input::range("n", n, 0, MAX_PAGE_SIZE)?;
        let mut newest_first = by_owner!(
            self.conn.owner(),
            query_as!(
                Message::<Json<J>>,
                r#"select id, conversation_id, user_id, role, content,
                          metadata as "metadata: Json<J>", created_at
                     from messages
                    where conversation_id = $1"#
                    + owned(" and user_id = $3")
                    + " order by created_at desc, id desc limit $2",
                conversation_id.as_uuid(),
                n,
            )
            .map(Message::of_row)
                => |statement| rows::all(self.conn.repeatable(), "messages", statement).await
        )?;
        newest_first.reverse();
        Ok(newest_first)
    }

    /// All of a conversation's messages, oldest first, as they come from the server: for exports and
    /// other readers of more than a page. However many there are, no more than a few are in memory.
    ///
    /// One that can't be read is [`Error::Unreadable`](crate::Error::Unreadable) in its place; asked for
    /// more, the stream goes on with the next.
    ///
    /// They are what the conversation held when the reading began. It keeps a connection until it
    /// ends or is dropped, and `statement_timeout` counts from its beginning, whoever is slow.
    ///
    /// ```no_run
    /// use futures_util::TryStreamExt;
    ///
    /// # async fn example(db: chancery::Database, id: chancery::ConversationId) -> chancery::Result<()> {
    /// let mut messages = std::pin::pin!(db.messages().stream_by_conversation(id));
    /// while let Some(message) = messages.try_next().await? {
    ///     println!("{}: {}", message.role, message.content);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn stream_by_conversation(
        self,
        conversation_id: ConversationId,
    ) -> impl Stream<Item = Result<Message<J>>> + Send + use<'c, A, J> {
        by_owner!(
            self.conn.owner(),
            query_as!(
                Message::<Json<J>>,
                r#"select id, conversation_id, user_id, role, content,
                          metadata as "metadata: Json<J>", created_at
                     from messages
                    where conversation_id = $1"#
                    + owned(" and user_id = $2")
                    + " order by created_at, id",
                conversation_id.as_uuid(),
            )
            .map(Message::of_row)
                => |statement| rows::stream(self.conn.repeatable(), "messages", statement)
        )
    }

    /// A page of a conversation's messages, oldest first.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::Error::InvalidInput) for a size outside of 1 to [`MAX_PAGE_SIZE`].
    pub async fn page_by_conversation(
        self,
        conversation_id: ConversationId,
        page: PageRequest,
    ) -> Result<Page<Message<J>>> {
        let list = List::by("messages, oldest first", conversation_id.as_uuid());
        let rows = page.rows_to_fetch()?;
        let (after, after_id) = page.place(list)?;
        let items = by_owner!(
            self.conn.owner(),
            query_as!(
                Message::<Json<J>>,
                r#"select id, conversation_id, user_id, role, content,
                          metadata as "metadata: Json<J>", created_at
                     from messages
                    where conversation_id = $1
                      and (created_at, id)
                          > (coalesce($2::timestamptz, '-infinity'),
                             coalesce($3::uuid, '00000000-0000-0000-0000-000000000000'))"#
                    + owned(" and user_id = $5")
                    + " order by created_at, id limit $4",
                conversation_id.as_uuid(),
                after,
                after_id,
                rows,
            )
            .map(Message::of_row)
                => |statement| rows::listed(self.conn.repeatable(), "messages", Some("created_at"), statement).await
        )?;
        Ok(Page::new(&page, list, items, |m| (m.created_at, m.id.as_uuid())))
    }

    /// A page of a conversation's messages, newest first: for scrolling back.
    ///
    /// # Errors
    ///
    /// As [`page_by_conversation`](Self::page_by_conversation).
    pub async fn page_back_by_conversation(
        self,
        conversation_id: ConversationId,
        page: PageRequest,
    ) -> Result<Page<Message<J>>> {
        let list = List::by("messages, newest first", conversation_id.as_uuid());
        let rows = page.rows_to_fetch()?;
        let (before, before_id) = page.place(list)?;
        let items = by_owner!(
            self.conn.owner(),
            query_as!(
                Message::<Json<J>>,
                r#"select id, conversation_id, user_id, role, content,
                          metadata as "metadata: Json<J>", created_at
                     from messages
                    where conversation_id = $1
                      and (created_at, id)
                          < (coalesce($2::timestamptz, 'infinity'),
                             coalesce($3::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))"#
                    + owned(" and user_id = $5")
                    + " order by created_at desc, id desc limit $4",
                conversation_id.as_uuid(),
                before,
                before_id,
                rows,
            )
            .map(Message::of_row)
                => |statement| rows::listed(self.conn.repeatable(), "messages", Some("created_at"), statement).await
        )?;
        Ok(Page::new(&page, list, items, |m| (m.created_at, m.id.as_uuid())))
    }

    /// A user's messages whose metadata contains `contained`, newest first. The messages that cite a
    /// chunk: `json!({"chunk_ids": [chunk_id]})`.
    ///
    /// # Errors
    ///
    /// As [`list_by_conversation`](Self::list_by_conversation).
    pub async fn list_by_metadata(
        self,
        user_id: UserId,
        contained: &Value,
        limit: i64,
    ) -> Result<Vec<Message<J>>> {
        self.conn.check_owner(user_id)?;
        let (limit, _) = limit_offset(limit, 0)?;
        input::json("contained", contained)?;
        let statement = || {
            sqlx::query_as!(
                Message::<Json<J>>,
                r#"select id, conversation_id, user_id, role, content,
                      metadata as "metadata: Json<J>", created_at
                 from messages
                where user_id = $1 and metadata @> $2
                order by created_at desc, id desc
                limit $3"#,
                user_id.as_uuid(),
                contained,
                limit,
            )
            .map(Message::of_row)
        };
        rows::all(self.conn.repeatable(), "messages", statement).await
    }

    /// How many messages were written since a time, in all conversations.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::Error::InvalidInput) for a time outside of the years 1 to 9999.
    pub async fn count_since(self, since: DateTime<Utc>) -> Result<i64> {
        input::time("since", since)?;
        Ok(by_owner!(
            self.conn.owner(),
            query_scalar!(
                r#"select count(*) as "count!" from messages where created_at >= $1"#
                    + owned(" and user_id = $2"),
                since,
            )
            .fetch_one(self.conn.repeatable())
            .await
        )?)
    }
}
