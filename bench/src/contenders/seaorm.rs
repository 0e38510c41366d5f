//! SeaORM 2, by its entities.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{Expr, ExprTrait, Func};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectOptions, Database, DatabaseConnection, EntityTrait,
    QueryFilter, QueryOrder, QuerySelect, Set, TransactionTrait,
};
use serde_json::json;
use uuid::Uuid;

use crate::contender::{ChunkInput, Contender, Failure, Outcome};

mod users {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "users")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub email: String,
        pub password_hash: Option<String>,
        pub name: Option<String>,
        pub profile_picture: Option<String>,
        pub profession: Option<String>,
        pub date_of_birth: Option<Date>,
        pub timezone: String,
        pub is_active: bool,
        pub last_login: Option<DateTimeUtc>,
        pub created_at: DateTimeUtc,
        pub updated_at: DateTimeUtc,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

mod conversations {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "conversations")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub user_id: Uuid,
        pub title: Option<String>,
        pub created_at: DateTimeUtc,
        pub updated_at: DateTimeUtc,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

mod messages {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "messages")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub conversation_id: Uuid,
        pub user_id: Uuid,
        pub role: String,
        pub content: String,
        pub metadata: Json,
        pub created_at: DateTimeUtc,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

mod chunks {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "chunks")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub transcript_id: Uuid,
        pub user_id: Uuid,
        pub chunk_text: String,
        pub chunk_index: i32,
        pub token_count: i32,
        pub metadata: Json,
        pub created_at: DateTimeUtc,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// How many rows of seven values fit into one statement.
const ROWS_PER_STATEMENT: usize = 65_535 / 7;

pub struct SeaOrm {
    db: DatabaseConnection,
}

pub async fn pool(url: &str, connections: u32) -> Outcome<SeaOrm> {
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(connections)
        .acquire_timeout(Duration::from_secs(30))
        .sqlx_logging(false);
    Ok(SeaOrm { db: Database::connect(options).await? })
}

fn missing() -> Failure {
    "no such row".into()
}

fn message(
    conversation_id: Uuid,
    user_id: Uuid,
    role: &str,
    content: &str,
) -> messages::ActiveModel {
    messages::ActiveModel {
        id: Set(Uuid::now_v7()),
        conversation_id: Set(conversation_id),
        user_id: Set(user_id),
        role: Set(role.to_owned()),
        content: Set(content.to_owned()),
        metadata: Set(json!({})),
        ..Default::default()
    }
}

fn chunk(chunk: ChunkInput) -> chunks::ActiveModel {
    chunks::ActiveModel {
        id: Set(chunk.id),
        transcript_id: Set(chunk.transcript_id),
        user_id: Set(chunk.user_id),
        chunk_text: Set(chunk.chunk_text),
        chunk_index: Set(chunk.chunk_index),
        token_count: Set(chunk.token_count),
        metadata: Set(chunk.metadata),
        ..Default::default()
    }
}

impl Contender for SeaOrm {
    async fn get_by_id(&self, id: Uuid) -> Outcome<Uuid> {
        let user = users::Entity::find_by_id(id).one(&self.db).await?;
        Ok(user.ok_or_else(missing)?.id)
    }

    async fn get_by_email(&self, email: &str) -> Outcome<Uuid> {
        let user = users::Entity::find()
            .filter(
                Expr::expr(Func::lower(Expr::col(users::Column::Email)))
                    .eq(Func::lower(Expr::value(email))),
            )
            .one(&self.db)
            .await?;
        Ok(user.ok_or_else(missing)?.id)
    }

    async fn insert_message(
        &self,
        conversation_id: Uuid,
        user_id: Uuid,
        content: &str,
    ) -> Outcome<Uuid> {
        let message = message(conversation_id, user_id, "user", content).insert(&self.db).await?;
        Ok(message.id)
    }

    async fn turn(&self, user_id: Uuid, question: &str, answer: &str) -> Outcome<Uuid> {
        let transaction = self.db.begin().await?;
        let conversation = conversations::ActiveModel {
            id: Set(Uuid::now_v7()),
            user_id: Set(user_id),
            title: Set(Some("A turn".to_owned())),
            ..Default::default()
        }
        .insert(&transaction)
        .await?;
        for (role, content) in [("user", question), ("assistant", answer)] {
            message(conversation.id, user_id, role, content).insert(&transaction).await?;
        }
        transaction.commit().await?;
        Ok(conversation.id)
    }

    async fn conversation_page(&self, user_id: Uuid, size: i64) -> Outcome<usize> {
        let rows = conversations::Entity::find()
            .filter(conversations::Column::UserId.eq(user_id))
            .order_by_desc(conversations::Column::UpdatedAt)
            .order_by_desc(conversations::Column::Id)
            .limit(size.cast_unsigned())
            .all(&self.db)
            .await?;
        Ok(rows.len())
    }

    async fn message_page(
        &self,
        conversation_id: Uuid,
        after: Option<(DateTime<Utc>, Uuid)>,
        size: i64,
    ) -> Outcome<usize> {
        let mut page = messages::Entity::find()
            .filter(messages::Column::ConversationId.eq(conversation_id))
            .cursor_by((messages::Column::CreatedAt, messages::Column::Id));
        if let Some(place) = after {
            page.after(place);
        }
        Ok(page.first(size.cast_unsigned()).all(&self.db).await?.len())
    }

    async fn create_chunks(&self, chunks: Vec<ChunkInput>) -> Outcome<usize> {
        let rows = chunks::Entity::insert_many(chunks.into_iter().map(chunk))
            .exec_with_returning(&self.db)
            .await?;
        Ok(rows.len())
    }

    async fn load_chunks(&self, chunks: Vec<ChunkInput>) -> Outcome<usize> {
        let transaction = self.db.begin().await?;
        let mut stored = 0;
        let mut chunks = chunks.into_iter().peekable();
        while chunks.peek().is_some() {
            let some = chunks.by_ref().take(ROWS_PER_STATEMENT).map(chunk);
            stored +=
                chunks::Entity::insert_many(some).exec_without_returning(&transaction).await?;
        }
        transaction.commit().await?;
        Ok(stored.try_into()?)
    }

    async fn read_chunks(&self, transcript_id: Uuid) -> Outcome<usize> {
        let rows = chunks::Entity::find()
            .filter(chunks::Column::TranscriptId.eq(transcript_id))
            .order_by_asc(chunks::Column::ChunkIndex)
            .limit(1_000)
            .all(&self.db)
            .await?;
        Ok(rows.len())
    }

    async fn chunks_by_ids(&self, ids: &[Uuid]) -> Outcome<usize> {
        let rows = chunks::Entity::find()
            .filter(chunks::Column::Id.is_in(ids.iter().copied()))
            .all(&self.db)
            .await?;
        Ok(rows.len())
    }
}
