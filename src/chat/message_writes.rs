//! How messages are written, changed and deleted.

use futures_util::FutureExt;
use serde_json::Value;

use super::conversation::ConversationId;
use super::message::{Message, MessageId, MessageRepository};
use super::new_message::{MessageColumns, NewMessage};
use crate::db::bulk::in_batches;
use crate::db::owner::by_owner;
use crate::db::{Conn, Error, Result, input};

impl MessageRepository<'_> {
    /// Writes a message. Its conversation's `updated_at` follows.
    ///
    /// # Errors
    ///
    /// [`ForeignKey`](Error::ForeignKey) when there is no such conversation;
    /// [`InvalidInput`](Error::InvalidInput).
    pub async fn create(self, new: NewMessage) -> Result<Message> {
        new.check()?;
        Ok(by_owner!(
            self.conn.owner(),
            query_as!(
                Message,
                "insert into messages (id, conversation_id, user_id, role, content, metadata)
                 values ($1, $2, (select user_id from conversations where id = $2), $3, $4, $5)
                 returning id, conversation_id, user_id, role, content, metadata, created_at"
                    | owned(
                        "insert into messages (id, conversation_id, user_id, role, content,
                                               metadata)
                         values ($1, $2, $6, $3, $4, $5)
                         returning id, conversation_id, user_id, role, content, metadata,
                                   created_at"
                    ),
                new.id.unwrap_or_else(MessageId::new).as_uuid(),
                new.conversation_id.as_uuid(),
                new.role.as_str(),
                new.content,
                new.metadata,
            )
            .fetch_one(self.conn)
            .await
        )?)
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
        let created = in_batches(self.conn, "messages", new, NewMessage::size, |conn, batch| {
            MessageRepository::create_batch(conn, batch).boxed()
        })
        .await?;
        Ok(created.into_iter().flatten().collect())
    }

    /// Changes what a message says and what was noted about it; where and when it stands stays.
    ///
    /// # Errors
    ///
    /// [`NotFound`](Error::NotFound); [`InvalidInput`](Error::InvalidInput).
    pub async fn update(self, id: MessageId, content: &str, metadata: &Value) -> Result<Message> {
        input::long_text("content", content)?;
        input::json("metadata", metadata)?;
        by_owner!(
            self.conn.owner(),
            query_as!(
                Message,
                "update messages set content = $2, metadata = $3 where id = $1"
                    + owned(" and user_id = $4")
                    + " returning id, conversation_id, user_id, role, content, metadata,
                                 created_at",
                id.as_uuid(),
                content,
                metadata,
            )
            .fetch_optional(self.conn)
            .await
        )?
        .ok_or(Error::NotFound("message"))
    }

    /// Deletes a message. Says whether there was one.
    pub async fn delete(self, id: MessageId) -> Result<bool> {
        let done = by_owner!(
            self.conn.owner(),
            query!("delete from messages where id = $1" + owned(" and user_id = $2"), id.as_uuid())
                .execute(self.conn)
                .await
        )?;
        Ok(done.rows_affected() > 0)
    }

    async fn create_batch(conn: Conn<'_>, new: Vec<NewMessage>) -> Result<Vec<Message>> {
        let (conversation_ids, drafts): (Vec<_>, Vec<_>) =
            new.into_iter().map(NewMessage::into_draft).unzip();
        let new = MessageColumns::from(drafts);
        // Texts come back as they were sent, so they need not; jsonb writes numbers in its own way.
        let mut rows = by_owner!(
            conn.owner(),
            query!(
                "insert into messages (id, conversation_id, user_id, role, content, metadata)
                 select n.id, n.conversation_id, c.user_id, n.role, n.content, n.metadata
                   from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::jsonb[])
                        as n (id, conversation_id, role, content, metadata)
                   left join conversations c on c.id = n.conversation_id
                 returning id, user_id, metadata, created_at"
                    | owned(
                        "insert into messages (id, conversation_id, user_id, role, content,
                                               metadata)
                         select n.id, n.conversation_id, $6::uuid, n.role, n.content, n.metadata
                           from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[],
                                       $5::jsonb[])
                                as n (id, conversation_id, role, content, metadata)
                         returning id, user_id, metadata, created_at"
                    ),
                &new.ids,
                &ConversationId::uuids(&conversation_ids),
                &new.role_names() as &[&str],
                &new.contents,
                &new.metadata,
            )
            .map(|row| (row.id, row.user_id, row.metadata, row.created_at))
            .fetch_all(conn)
            .await
        )?;
        input::sort_as(&new.ids, &mut rows, |(id, ..)| id.as_uuid());
        let sent = conversation_ids.into_iter().zip(new.roles).zip(new.contents);
        let created =
            sent.zip(rows).map(
                |(((conversation_id, role), content), (id, user_id, metadata, created_at))| {
                    Message { id, conversation_id, user_id, role, content, metadata, created_at }
                },
            );
        Ok(created.collect())
    }
}
