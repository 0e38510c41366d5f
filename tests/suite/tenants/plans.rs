//! Under the policies, each statement still finds its rows by an index.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};

use super::{Tenants, World, execute};

/// Statements that read a table whatever the index, and why that is no harm.
const ACCEPTED: &[(&str, &str)] = &[];

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn no_statement_of_a_users_reads_a_whole_table(pool: PgPool) {
    let tables: BTreeSet<String> = sqlx::query_scalar(
        "select relname::text from pg_class
          where relnamespace = current_schema::regnamespace and relkind = 'r' and relrowsecurity",
    )
    .fetch_all(&pool)
    .await
    .unwrap()
    .into_iter()
    .collect();
    let mut transaction = pool.begin().await.unwrap();
    sqlx::raw_sql(
        "set local role chancery_app;
         set local chancery.user_id = '00000000-0000-0000-0000-000000000001';
         set local plan_cache_mode = force_generic_plan;
         set local enable_seqscan = off",
    )
    .execute(&mut *transaction)
    .await
    .unwrap();
    let (mut planned, mut refused) = (0, Vec::new());
    for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".sqlx")).unwrap() {
        let known: Value =
            serde_json::from_slice(&fs::read(file.unwrap().path()).unwrap()).unwrap();
        let text = known["query"].as_str().unwrap();
        let parameters = known["describe"]["parameters"]["Left"].as_array().unwrap().len();
        let named = |table: &String| {
            text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == table)
        };
        if !tables.iter().any(named) {
            continue;
        }
        let nulls = vec!["null"; parameters].join(", ");
        let arguments = if parameters == 0 { String::new() } else { format!("({nulls})") };
        sqlx::raw_sql("savepoint plan").execute(&mut *transaction).await.unwrap();
        let prepare = format!("prepare q as {text}");
        sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut *transaction).await.unwrap();
        let explain = format!("explain (costs off) execute q{arguments}");
        let plan = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(&mut *transaction).await;
        match plan {
            Ok(lines) => {
                planned += 1;
                let lines: Vec<String> = lines.iter().map(|line| sqlx::Row::get(line, 0)).collect();
                let scanned = lines.iter().find(|line| {
                    line.split_once("Seq Scan on ")
                        .is_some_and(|(_, rest)| tables.contains(rest.split(' ').next().unwrap()))
                });
                if let Some(scanned) = scanned
                    && !ACCEPTED.iter().any(|(accepted, _)| text.contains(accepted))
                {
                    refused.push(format!("{}\n{text}\n{}", scanned.trim(), lines.join("\n")));
                }
            }
            // What only the service does.
            Err(error) if error.as_database_error().unwrap().code().unwrap() == "42501" => {}
            Err(error) => panic!("{text}: {error}"),
        }
        sqlx::raw_sql("rollback to savepoint plan; deallocate all")
            .execute(&mut *transaction)
            .await
            .unwrap();
    }
    assert!(planned > 100, "only {planned} statements were planned");
    assert!(refused.is_empty(), "no index serves a user:\n{}", refused.join("\n\n"));
}

/// With others' rows all around, twenty thousand of them, a statement reads no more blocks than the user
/// has rows, and a few.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn what_others_have_costs_a_user_nothing(pool: PgPool) {
    let tenants = Tenants::new(&pool, "login").await;
    let world = World::new(&tenants.db).await;
    execute(
        &pool,
        "insert into users (id, email)
         select md5(i::text)::uuid, i || '@example.org' from generate_series(1, 200) i;
         insert into projects (user_id, name)
         select u.id, 'p' from users u, generate_series(1, 10);
         insert into extraction_jobs (project_id, source_url, extraction_type)
         select p.id, 'u', 'color' from projects p, generate_series(1, 10);
         insert into conversations (user_id)
         select u.id from users u, generate_series(1, 5);
         insert into messages (conversation_id, user_id, role, content)
         select c.id, c.user_id, 'user', 'm' from conversations c, generate_series(1, 20)",
    )
    .await;
    execute(&pool, "vacuum analyze").await;
    let user = world.user.id;
    for (text, most) in [
        (
            "select id from extraction_jobs where status = 'pending'
           order by created_at desc, id desc limit 20",
            400,
        ),
        ("select count(*) from extraction_jobs", 400),
        ("select count(*) from messages where created_at >= now() - interval '1 hour'", 150),
        ("select id from conversations order by updated_at desc, id desc limit 20", 50),
        ("select id from users where lower(email) = lower('7@example.org')", 10),
    ] {
        let plan: Value = sqlx::query_scalar(AssertSqlSafe(format!(
            "explain (analyze, buffers, format json) {text}"
        )))
        .fetch_one(tenants.db.as_user(user).executor())
        .await
        .unwrap();
        let plan = &plan[0]["Plan"];
        let read = plan["Shared Hit Blocks"].as_i64().unwrap()
            + plan["Shared Read Blocks"].as_i64().unwrap();
        assert!(read <= most, "{text} reads {read} blocks: {plan:#}");
    }
    tenants.end().await;
}
