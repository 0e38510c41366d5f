//! Messages. Their order is `(created_at, id)`: those of one transaction share the time, and the
//! identifiers keep the order in which they were made.

use chrono::{DateTime, Utc};
use futures_core::Stream;
use futures_util::TryStreamExt;
use serde::Serialize;
use serde_json::Value;
use sqlx::types::Json;

use super::conversation::ConversationId;
use super::new_message::{MessageColumns, NewMessage};
use crate::db::bulk::{BATCH_BYTES, Together, batches};
use crate::db::id::{debug_fields, id, text_enum};
use crate::db::page::limit_offset;
use crate::db::{Conn, Error, MAX_PAGE_SIZE, Page, PageRequest, Result, input};
use crate::identity::UserId;
use crate::repositories::{Access, FromJson, of_row, repository};

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

    /// Writes any number of messages, to any number of conversations, all of them or none. They come
    /// back in the order given. A turn of a conversation, question and answer, is this with two.
    ///
    /// Up to 4 MiB of content and metadata go as one statement. More go as several in one transaction,
    /// so that neither side holds all of it a second time.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub async fn create_many(self, new: Vec<NewMessage>) -> Result<Vec<Message>> {
        let sizes = new.iter().map(NewMessage::size).collect::<Result<Vec<_>>>()?;
        let mut created = Vec::with_capacity(new.len());
        let batches = batches(new, &sizes, BATCH_BYTES);
        let mut work = Together::begin(self.conn, batches.len()).await?;
        for batch in batches {
            created.append(&mut Self::create_batch(work.conn(), batch).await?);
        }
        work.end().await?;
        Ok(created)
    }

    async fn create_batch(conn: Conn<'_>, new: Vec<NewMessage>) -> Result<Vec<Message>> {
        let (conversation_ids, drafts): (Vec<_>, Vec<_>) =
            new.into_iter().map(NewMessage::into_draft).unzip();
        let new = MessageColumns::from(drafts);
        // Texts come back as they were sent, so they need not; jsonb writes numbers in its own way.
        let mut rows = sqlx::query!(
            "insert into messages (id, conversation_id, user_id, role, content, metadata)
             select n.id, n.conversation_id, c.user_id, n.role, n.content, n.metadata
               from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::jsonb[])
                    as n (id, conversation_id, role, content, metadata)
               left join conversations c on c.id = n.conversation_id
             returning id, user_id, metadata, created_at",
            &new.ids,
            &ConversationId::uuids(&conversation_ids),
            &new.role_names() as &[&str],
            &new.contents,
            &new.metadata,
        )
        .fetch_all(conn)
        .await?;
        input::sort_as(&new.ids, &mut rows, |row| row.id.as_uuid());
        let sent = conversation_ids.into_iter().zip(new.roles).zip(new.contents);
        let created = sent.zip(rows).map(|(((conversation_id, role), content), row)| Message {
            id: row.id,
            conversation_id,
            user_id: row.user_id,
            role,
            content,
            metadata: row.metadata,
            created_at: row.created_at,
        });
        Ok(created.collect())
    }
}

impl<'c, A: Access, J: FromJson> MessageRepository<'c, A, J> {
    /// The message with this identifier.
    pub async fn get_by_id(self, id: MessageId) -> Result<Option<Message<J>>> {
        Ok(sqlx::query_as!(
            Message::<Json<J>>,
            r#"select id, conversation_id, user_id, role, content,
                      metadata as "metadata: Json<J>", created_at
                 from messages
                where id = $1"#,
            id.as_uuid(),
        )
        .map(Message::of_row)
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
    ) -> Result<Vec<Message<J>>> {
        let (limit, offset) = limit_offset(limit, offset)?;
        Ok(sqlx::query_as!(
            Message::<Json<J>>,
            r#"select id, conversation_id, user_id, role, content,
                      metadata as "metadata: Json<J>", created_at
                 from messages
                where conversation_id = $1
                order by created_at, id
                limit $2 offset $3"#,
            conversation_id.as_uuid(),
            limit,
            offset,
        )
        .map(Message::of_row)
        .fetch_all(self.conn)
        .await?)
    }

    /// The last `n` messages of a conversation, oldest first: what a model is given.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](Error::InvalidInput) for an `n` outside of 0 to [`MAX_PAGE_SIZE`].
    pub async fn get_last_n(
        self,
        conversation_id: ConversationId,
        n: i64,
    ) -> Result<Vec<Message<J>>> {
        input::range("n", n, 0, MAX_PAGE_SIZE)?;
        let mut newest_first = sqlx::query_as!(
            Message::<Json<J>>,
            r#"select id, conversation_id, user_id, role, content,
                      metadata as "metadata: Json<J>", created_at
                 from messages
                where conversation_id = $1
                order by created_at desc, id desc
                limit $2"#,
            conversation_id.as_uuid(),
            n,
        )
        .map(Message::of_row)
        .fetch_all(self.conn)
        .await?;
        newest_first.reverse();
        Ok(newest_first)
    }

    /// All of a conversation's messages, oldest first, as they come from the server: for exports and
    /// other readers of more than a page. However many there are, no more than a few are in memory.
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
        sqlx::query_as!(
            Message::<Json<J>>,
            r#"select id, conversation_id, user_id, role, content,
                      metadata as "metadata: Json<J>", created_at
                 from messages
                where conversation_id = $1
                order by created_at, id"#,
            conversation_id.as_uuid(),
        )
        .map(Message::of_row)
        .fetch(self.conn)
        .map_err(Error::from)
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
    ) -> Result<Page<Message<J>>> {
        let rows = page.rows_to_fetch()?;
        let (after, after_id) = page.place()?;
        let items = sqlx::query_as!(
            Message::<Json<J>>,
            r#"select id, conversation_id, user_id, role, content,
                      metadata as "metadata: Json<J>", created_at
                 from messages
                where conversation_id = $1
                  and (created_at, id) > (coalesce($2::timestamptz, '-infinity'),
                                          coalesce($3::uuid, '00000000-0000-0000-0000-000000000000'))
                order by created_at, id
                limit $4"#,
            conversation_id.as_uuid(),
            after,
            after_id,
            rows,
        )
        .map(Message::of_row)
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
    ) -> Result<Page<Message<J>>> {
        let rows = page.rows_to_fetch()?;
        let (before, before_id) = page.place()?;
        let items = sqlx::query_as!(
            Message::<Json<J>>,
            r#"select id, conversation_id, user_id, role, content,
                      metadata as "metadata: Json<J>", created_at
                 from messages
                where conversation_id = $1
                  and (created_at, id) < (coalesce($2::timestamptz, 'infinity'),
                                          coalesce($3::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
                order by created_at desc, id desc
                limit $4"#,
            conversation_id.as_uuid(),
            before,
            before_id,
            rows,
        )
        .map(Message::of_row)
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
    ) -> Result<Vec<Message<J>>> {
        let (limit, _) = limit_offset(limit, 0)?;
        input::json("contained", contained)?;
        Ok(sqlx::query_as!(
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
