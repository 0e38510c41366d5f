//! Messages. Their order is `(created_at, id)`: those of one transaction share the time, and the
//! identifiers keep the order in which they were made.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};

use super::conversation::ConversationId;
use crate::db::id::{debug_fields, id, text_enum};
use crate::db::page::limit_offset;
use crate::db::{Error, MAX_PAGE_SIZE, Page, PageRequest, Result, input};
use crate::identity::UserId;
use crate::repositories::{Access, repository};

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

/// A message.
#[derive(Clone, PartialEq, Serialize, sqlx::FromRow)]
#[non_exhaustive]
pub struct Message {
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
    pub metadata: Value,
    /// When it was written.
    pub created_at: DateTime<Utc>,
}

debug_fields!(Message { id, conversation_id, user_id, role, created_at });

/// A message to be written.
///
/// ```
/// use chancery::{ConversationId, NewMessage};
/// use serde_json::json;
///
/// let id = ConversationId::new();
/// let question = NewMessage::user(id, "Why the Moon?");
/// let answer = NewMessage::assistant(id, "Because it is hard.").metadata(json!({"model": "m-1"}));
/// ```
#[derive(Clone, PartialEq)]
pub struct NewMessage {
    /// Its identifier; one is made unless said. See [`NewMessage::id`].
    pub id: Option<MessageId>,
    /// Where.
    pub conversation_id: ConversationId,
    /// By whom.
    pub role: Role,
    /// At most [`MAX_TEXT_BYTES`](crate::MAX_TEXT_BYTES).
    pub content: String,
    /// At most [`MAX_JSON_DEPTH`](crate::MAX_JSON_DEPTH) levels; `{}` unless said.
    pub metadata: Value,
}

debug_fields!(NewMessage { conversation_id, role });

impl NewMessage {
    /// By anyone.
    pub fn new(conversation_id: ConversationId, role: Role, content: impl Into<String>) -> Self {
        Self { id: None, conversation_id, role, content: content.into(), metadata: json!({}) }
    }

    /// By the person.
    pub fn user(conversation_id: ConversationId, content: impl Into<String>) -> Self {
        Self::new(conversation_id, Role::User, content)
    }

    /// By the model.
    pub fn assistant(conversation_id: ConversationId, content: impl Into<String>) -> Self {
        Self::new(conversation_id, Role::Assistant, content)
    }

    /// By the application.
    pub fn system(conversation_id: ConversationId, content: impl Into<String>) -> Self {
        Self::new(conversation_id, Role::System, content)
    }

    /// With notes.
    pub fn metadata(mut self, metadata: Value) -> Self {
        self.metadata = metadata;
        self
    }

    /// With an identifier of the caller's: the key that makes writing it idempotent. Sent once more
    /// after a lost answer, the message is refused as
    /// [`MessagesPkey`](crate::Constraint::MessagesPkey): it was stored the first time.
    ///
    /// Messages of one transaction are ordered by their identifiers: make them in order.
    pub fn id(mut self, id: MessageId) -> Self {
        self.id = Some(id);
        self
    }

    /// What is checked before it is stored: for callers that do something costly in between.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](Error::InvalidInput).
    pub fn check(&self) -> Result<()> {
        input::long_text("content", &self.content)?;
        input::json("metadata", &self.metadata)
    }
}

repository!(
    /// Messages: [`Database::messages`](crate::Database::messages).
    MessageRepository
);

impl MessageRepository<'_> {
    /// Writes a message. Its conversation's `updated_at` follows.
    ///
    /// # Errors
    ///
    /// [`ForeignKey`](Error::ForeignKey) when there is no such conversation;
    /// [`InvalidInput`](Error::InvalidInput).
    pub async fn create(self, new: NewMessage) -> Result<Message> {
        new.check()?;
        Ok(sqlx::query_as!(
            Message,
            "insert into messages (id, conversation_id, user_id, role, content, metadata)
             values ($1, $2, (select user_id from conversations where id = $2), $3, $4, $5)
             returning id, conversation_id, user_id, role, content, metadata, created_at",
            new.id.unwrap_or_else(MessageId::new).as_uuid(),
            new.conversation_id.as_uuid(),
            new.role.as_str(),
            new.content,
            new.metadata,
        )
        .fetch_one(self.conn)
        .await?)
    }

    /// Writes any number of messages, to any number of conversations, in one statement: all of them
    /// or none. They come back in the order given.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub async fn create_many(self, new: Vec<NewMessage>) -> Result<Vec<Message>> {
        new.iter().try_for_each(NewMessage::check)?;
        if new.is_empty() {
            return Ok(Vec::new());
        }
        let mut ids = Vec::with_capacity(new.len());
        let mut conversation_ids = Vec::with_capacity(new.len());
        let mut roles = Vec::with_capacity(new.len());
        let mut contents = Vec::with_capacity(new.len());
        let mut metadata = Vec::with_capacity(new.len());
        for message in new {
            ids.push(message.id.unwrap_or_else(MessageId::new).as_uuid());
            conversation_ids.push(message.conversation_id.as_uuid());
            roles.push(message.role.as_str().to_owned());
            contents.push(message.content);
            metadata.push(message.metadata);
        }
        let mut rows = sqlx::query_as!(
            Message,
            "insert into messages (id, conversation_id, user_id, role, content, metadata)
             select n.id, n.conversation_id, c.user_id, n.role, n.content, n.metadata
               from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::jsonb[])
                    as n (id, conversation_id, role, content, metadata)
               left join conversations c on c.id = n.conversation_id
             returning id, conversation_id, user_id, role, content, metadata, created_at",
            &ids,
            &conversation_ids,
            &roles,
            &contents,
            &metadata,
        )
        .fetch_all(self.conn)
        .await?;
        input::sort_as(&ids, &mut rows, |message| message.id.as_uuid());
        Ok(rows)
    }
}

impl<A: Access> MessageRepository<'_, A> {
    /// The message with this identifier.
    pub async fn get_by_id(self, id: MessageId) -> Result<Option<Message>> {
        Ok(sqlx::query_as!(
            Message,
            "select id, conversation_id, user_id, role, content, metadata, created_at
               from messages
              where id = $1",
            id.as_uuid(),
        )
        .fetch_optional(self.conn)
        .await?)
    }

    /// A conversation's messages, oldest first. For long conversations use
    /// [`page_by_conversation`](Self::page_by_conversation): an offset reads what it skips.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](Error::InvalidInput) for a limit outside of 0 to [`MAX_PAGE_SIZE`] or a
    /// negative offset.
    pub async fn list_by_conversation(
        self,
        conversation_id: ConversationId,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<Message>> {
        let (limit, offset) = limit_offset(limit, offset)?;
        Ok(sqlx::query_as!(
            Message,
            "select id, conversation_id, user_id, role, content, metadata, created_at
               from messages
              where conversation_id = $1
              order by created_at, id
              limit $2 offset $3",
            conversation_id.as_uuid(),
            limit,
            offset,
        )
        .fetch_all(self.conn)
        .await?)
    }

    /// The last `n` messages of a conversation, oldest first: what a model is given.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](Error::InvalidInput) for an `n` outside of 0 to [`MAX_PAGE_SIZE`].
    pub async fn get_last_n(self, conversation_id: ConversationId, n: i64) -> Result<Vec<Message>> {
        input::range("n", n, 0, MAX_PAGE_SIZE)?;
        let mut newest_first = sqlx::query_as!(
            Message,
            "select id, conversation_id, user_id, role, content, metadata, created_at
               from messages
              where conversation_id = $1
              order by created_at desc, id desc
              limit $2",
            conversation_id.as_uuid(),
            n,
        )
        .fetch_all(self.conn)
        .await?;
        newest_first.reverse();
        Ok(newest_first)
    }

    /// A page of a conversation's messages, oldest first.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](Error::InvalidInput) for a size outside of 1 to [`MAX_PAGE_SIZE`].
    pub async fn page_by_conversation(
        self,
        conversation_id: ConversationId,
        page: PageRequest,
    ) -> Result<Page<Message>> {
        let rows = page.rows_to_fetch()?;
        let (after, after_id) = page.place()?;
        let items = sqlx::query_as!(
            Message,
            "select id, conversation_id, user_id, role, content, metadata, created_at
               from messages
              where conversation_id = $1
                and (created_at, id) > (coalesce($2::timestamptz, '-infinity'),
                                        coalesce($3::uuid, '00000000-0000-0000-0000-000000000000'))
              order by created_at, id
              limit $4",
            conversation_id.as_uuid(),
            after,
            after_id,
            rows,
        )
        .fetch_all(self.conn)
        .await?;
        Ok(Page::new(&page, items, |m| (m.created_at, m.id.as_uuid())))
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
    ) -> Result<Page<Message>> {
        let rows = page.rows_to_fetch()?;
        let (before, before_id) = page.place()?;
        let items = sqlx::query_as!(
            Message,
            "select id, conversation_id, user_id, role, content, metadata, created_at
               from messages
              where conversation_id = $1
                and (created_at, id) < (coalesce($2::timestamptz, 'infinity'),
                                        coalesce($3::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
              order by created_at desc, id desc
              limit $4",
            conversation_id.as_uuid(),
            before,
            before_id,
            rows,
        )
        .fetch_all(self.conn)
        .await?;
        Ok(Page::new(&page, items, |m| (m.created_at, m.id.as_uuid())))
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
    ) -> Result<Vec<Message>> {
        let (limit, _) = limit_offset(limit, 0)?;
        input::json("contained", contained)?;
        Ok(sqlx::query_as!(
            Message,
            "select id, conversation_id, user_id, role, content, metadata, created_at
               from messages
              where user_id = $1 and metadata @> $2
              order by created_at desc, id desc
              limit $3",
            user_id.as_uuid(),
            contained,
            limit,
        )
        .fetch_all(self.conn)
        .await?)
    }

    /// How many messages were written since a time, in all conversations.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](Error::InvalidInput) for a time outside of the years 1 to 9999.
    pub async fn count_since(self, since: DateTime<Utc>) -> Result<i64> {
        input::time("since", since)?;
        Ok(sqlx::query_scalar!(
            r#"select count(*) as "count!" from messages where created_at >= $1"#,
            since,
        )
        .fetch_one(self.conn)
        .await?)
    }
}

impl MessageRepository<'_> {
    /// Changes what a message says and what was noted about it; where and when it stands stays.
    ///
    /// # Errors
    ///
    /// [`NotFound`](Error::NotFound); [`InvalidInput`](Error::InvalidInput).
    pub async fn update(self, id: MessageId, content: &str, metadata: &Value) -> Result<Message> {
        input::long_text("content", content)?;
        input::json("metadata", metadata)?;
        sqlx::query_as!(
            Message,
            "update messages set content = $2, metadata = $3 where id = $1
             returning id, conversation_id, user_id, role, content, metadata, created_at",
            id.as_uuid(),
            content,
            metadata,
        )
        .fetch_optional(self.conn)
        .await?
        .ok_or(Error::NotFound("message"))
    }

    /// Deletes a message. Says whether there was one.
    pub async fn delete(self, id: MessageId) -> Result<bool> {
        let done = sqlx::query!("delete from messages where id = $1", id.as_uuid())
            .execute(self.conn)
            .await?;
        Ok(done.rows_affected() > 0)
    }
}
