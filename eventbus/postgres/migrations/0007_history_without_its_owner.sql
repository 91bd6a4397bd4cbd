-- Workers whose login does not own these tables make no partitions. What they record goes into the default ones.
DO $$
DECLARE whole text;
BEGIN
    FOREACH whole IN ARRAY ARRAY['eventbus_events', 'eventbus_executions'] LOOP
        IF NOT EXISTS (SELECT FROM pg_partitioned_table WHERE partrelid = whole::regclass AND partdefid <> 0) THEN
            EXECUTE format('CREATE TABLE %I PARTITION OF %I DEFAULT', whole || '_default', whole);
        END IF;
    END LOOP;
END $$;
