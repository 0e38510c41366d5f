-- no-transaction
drop index concurrently users_email_exact_key;
