//! How conversations are begun, changed, deleted and locked.

use super::conversation::{
    Conversation, ConversationId, ConversationRepository, ConversationWithMessages,
};
use super::message::Message;
use super::new_message::{MessageColumns, MessageDraft};
use crate::db::owner::by_owner;
use crate::db::{Error, Result, UnitOfWork, input};
use crate::identity::UserId;

impl ConversationRepository<'_> {
    /// Begins a conversation. A title has at most 500 characters.
    ///
    /// # Errors
    ///
    /// [`ForeignKey`](Error::ForeignKey) when there is no such user;
    /// [`InvalidInput`](Error::InvalidInput).
    pub async fn create(self, user_id: UserId, title: Option<&str>) -> Result<Conversation> {
        self.conn.check_owner(user_id)?;
        input::optional_text("title", title, 500)?;
        Ok(sqlx::query_as!(
            Conversation,
            "insert into conversations (id, user_id, title) values ($1, $2, $3)
             returning id, user_id, title, created_at, updated_at",
            ConversationId::new().as_uuid(),
            user_id.as_uuid(),
            title,
        )
        .fetch_one(self.conn)
        .await?)
    }

    /// Begins a conversation with its first messages, in one statement: all of it or nothing.
    /// They come back in the order given.
    ///
    /// ```no_run
    /// # use chancery::{Database, MessageDraft, UserId};
    /// # async fn example(db: Database, user_id: UserId) -> chancery::Result<()> {
    /// let turn = vec![
    ///     MessageDraft::user("Why the Moon?"),
    ///     MessageDraft::assistant("Because it is hard."),
    /// ];
    /// let begun =
    ///     db.conversations().create_with_messages(user_id, Some("Rice speech"), turn).await?;
    /// assert_eq!(begun.messages.len(), 2);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create); [`InvalidInput`](Error::InvalidInput) also for messages of more
    /// than [`MAX_STATEMENT_BYTES`](crate::MAX_STATEMENT_BYTES);
    /// [`Conflict`](Error::Conflict) when there is a message with an identifier that was given.
    pub async fn create_with_messages(
        self,
        user_id: UserId,
        title: Option<&str>,
        messages: Vec<MessageDraft>,
    ) -> Result<ConversationWithMessages> {
        self.conn.check_owner(user_id)?;
        input::optional_text("title", title, 500)?;
        let new = MessageColumns::new(messages)?;
        if new.ids.is_empty() {
            let conversation = self.create(user_id, title).await?;
            return Ok(ConversationWithMessages { conversation, messages: Vec::new() });
        }
        let id = ConversationId::new();
        // Texts come back as they were sent, so they need not; jsonb writes numbers in its own way.
        let mut rows = sqlx::query!(
            r#"with c as (
                   insert into conversations (id, user_id, title)
                   values ($1, $2, $3)
                   returning created_at, updated_at
               ), m as (
                   insert into messages (id, conversation_id, user_id, role, content, metadata)
                   select n.id, $1, $2, n.role, n.content, n.metadata
                     from unnest($4::uuid[], $5::text[], $6::text[], $7::jsonb[])
                          as n (id, role, content, metadata)
                   returning id, metadata, created_at
               )
               select c.created_at as "begun_at!", c.updated_at as "updated_at!", m.id as "id!",
                      m.metadata as "metadata!", m.created_at as "written_at!"
                 from c, m"#,
            id.as_uuid(),
            user_id.as_uuid(),
            title,
            &new.ids,
            &new.role_names() as &[&str],
            &new.contents,
            &new.metadata,
        )
        .fetch_all(self.conn)
        .await?;
        input::sort_as(&new.ids, &mut rows, |row| row.id.as_uuid());
        let first = rows.first().ok_or(Error::NotFound("conversation"))?;
        let conversation = Conversation {
            id,
            user_id,
            title: title.map(str::to_owned),
            created_at: first.begun_at,
            updated_at: first.updated_at,
        };
        let written = rows.into_iter().zip(new.roles.into_iter().zip(new.contents));
        let messages = written.map(|(row, (role, content))| Message {
            id: row.id,
            conversation_id: id,
            user_id,
            role,
            content,
            metadata: row.metadata,
            created_at: row.written_at,
        });
        Ok(ConversationWithMessages { conversation, messages: messages.collect() })
    }

    /// Gives a conversation another title, or none.
    ///
    /// # Errors
    ///
    /// [`NotFound`](Error::NotFound); [`InvalidInput`](Error::InvalidInput).
    pub async fn update_title(
        self,
        id: ConversationId,
        title: Option<&str>,
    ) -> Result<Conversation> {
        input::optional_text("title", title, 500)?;
        by_owner!(
            self.conn.owner(),
            query_as!(
                Conversation,
                "update conversations set title = $2 where id = $1"
                    + owned(" and user_id = $3")
                    + " returning id, user_id, title, created_at, updated_at",
                id.as_uuid(),
                title,
            )
            .fetch_optional(self.conn)
            .await
        )?
        .ok_or(Error::NotFound("conversation"))
    }

    /// Deletes a conversation with its messages. Says whether there was one.
    pub async fn delete(self, id: ConversationId) -> Result<bool> {
        let done = by_owner!(
            self.conn.owner(),
            query!(
                "delete from conversations where id = $1" + owned(" and user_id = $2"),
                id.as_uuid()
            )
            .execute(self.conn)
            .await
        )?;
        Ok(done.rows_affected() > 0)
    }
}

impl UnitOfWork {
    /// The conversation, locked until this unit of work ends: nobody else changes it meanwhile, and
    /// whoever wants to, waits. Messages can be added to it all the same, but their transactions wait.
    ///
    /// # Errors
    ///
    /// [`LockTimeout`](Error::LockTimeout) where the session has a `lock_timeout`.
    pub async fn lock_conversation(&mut self, id: ConversationId) -> Result<Option<Conversation>> {
        let conn = self.executor();
        Ok(by_owner!(
            conn.owner(),
            query_as!(
                Conversation,
                "select id, user_id, title, created_at, updated_at
                   from conversations
                  where id = $1"
                    + owned(" and user_id = $2")
                    + " for no key update",
                id.as_uuid(),
            )
            .fetch_optional(conn)
            .await
        )?)
    }
}
