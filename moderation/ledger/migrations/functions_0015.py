"""Functions of Postgres that migration 0015 makes, and the triggers that call them. Frozen with it."""

# The two-sided exact binomial test at one half: terms of C(n, i) / 2^n, each from the one before, in logarithms.
MCNEMAR = """
CREATE FUNCTION vetline_mcnemar(b bigint, c bigint) RETURNS double precision LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    n bigint := b + c;
    term double precision := -(b + c) * ln(2::double precision);
    total double precision := 0;
BEGIN
    IF n = 0 THEN
        RETURN 1;
    END IF;
    FOR i IN 0..least(b, c) LOOP
        IF i > 0 THEN
            term := term + ln((n - i + 1)::double precision / i);
        END IF;
        IF term > -700 THEN
            total := total + exp(term);
        END IF;
    END LOOP;
    RETURN least(1, 2 * total);
END $$
"""

# Who may go past a gate: somebody who was given vetline_approver by name and not vetline_migrate. A superuser is a member
# of every role and is nobody's second pair of eyes, so memberships are read and not asked for.
IS_APPROVER = """
CREATE FUNCTION vetline_is_approver() RETURNS boolean LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    WITH RECURSIVE given AS (
        SELECT oid FROM pg_roles WHERE rolname = session_user
        UNION
        SELECT m.roleid FROM pg_auth_members m JOIN given ON m.member = given.oid
    )
    SELECT coalesce(bool_or(r.rolname = 'vetline_approver') AND NOT bool_or(r.rolname = 'vetline_migrate'), false)
    FROM given JOIN pg_roles r ON r.oid = given.oid
$$
"""

# Whether a later run has lost against an earlier one of the same rows: McNemar on all rows, on the Unsafe and on the Safe
# ones, by Holm. A loss on one class is not made up for by a gain on the other.
REGRESSION = """
CREATE FUNCTION vetline_regression(before uuid, after uuid, measures text[])
RETURNS TABLE (lost boolean, says text) LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    tested record;
    place integer := 0;
    adjusted double precision := 0;
    found text := '';
    any_lost boolean := false;
BEGIN
    FOR tested IN
        SELECT m.name, count(*) FILTER (WHERE p.was AND NOT p.is_now) AS losses,
               count(*) FILTER (WHERE p.is_now AND NOT p.was) AS gains, count(p.*) AS n,
               vetline_mcnemar(count(*) FILTER (WHERE p.was AND NOT p.is_now),
                               count(*) FILTER (WHERE p.is_now AND NOT p.was)) AS p_value
        FROM unnest(measures) AS m (name) LEFT JOIN (
            SELECT b.unsafe, b.said_unsafe = b.unsafe AS was, a.said_unsafe = a.unsafe AS is_now
            FROM evaluation_item b JOIN evaluation_item a ON a."row" = b."row"
            WHERE b.run_id = before AND a.run_id = after AND b.code IS NULL AND a.code IS NULL
        ) p ON m.name = 'accuracy' OR (m.name = 'recall' AND p.unsafe) OR (m.name = 'specificity' AND NOT p.unsafe)
        GROUP BY m.name ORDER BY p_value, m.name
    LOOP
        adjusted := greatest(adjusted, least(1, tested.p_value * (cardinality(measures) - place)));
        place := place + 1;
        any_lost := any_lost OR tested.n = 0 OR (adjusted < 0.05 AND tested.losses > tested.gains);
        found := found || CASE WHEN found = '' THEN '' ELSE ', ' END || format(
            '%s: %s rows lost, %s gained of %s, p %s', tested.name, tested.losses, tested.gains, tested.n,
            round(adjusted::numeric, 4));
    END LOOP;
    RETURN QUERY SELECT any_lost, found;
END $$
"""

# The one place where a gate is judged: commands ask it, and so does the trigger that lets a revision go live. First
# whether the run is about what is to go live, and is what the verdicts say; then the rules.
GATE_CHECK = """
CREATE FUNCTION vetline_gate_check(wanted integer, wanted_run uuid, wanted_kind text)
RETURNS TABLE (rule text, passed boolean, says text) LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path FROM CURRENT AS $$
DECLARE
    gate policy_gate;
    run evaluation_run;
    live record;
    served record;
    any_served boolean;
    baseline uuid;
    one jsonb;
    found jsonb;
    value double precision;
    n bigint;
BEGIN
    SELECT g.* INTO gate FROM policy_gate g JOIN policy_revision r ON r.policy = g.policy
    WHERE r.id = wanted ORDER BY g.id DESC LIMIT 1;
    IF gate.id IS NULL THEN
        RETURN;
    END IF;
    SELECT * INTO run FROM evaluation_run WHERE id = wanted_run;
    IF run.id IS NULL OR run.policy_revision_id IS DISTINCT FROM wanted THEN
        RETURN QUERY SELECT 'a run of this revision', false, 'there is none';
        RETURN;
    END IF;
    SELECT l.policy_revision_id, e.run_id, e.weights_sha256, e.template_mode INTO live
    FROM policy_live l LEFT JOIN policy_release e ON e.id = l.release_id WHERE l.policy = gate.policy;
    SELECT v.weights_sha256, v.template_mode INTO served
    FROM verdict v JOIN assessment a ON a.id = v.assessment_id WHERE a.purpose IS NULL
    ORDER BY v.xid DESC, v.seq DESC LIMIT 1;
    any_served := FOUND;
    RETURN QUERY SELECT 'a run on the gate''s data', run.data_sha256 = gate.data_sha256,
        'the run is on ' || left(run.data_sha256, 12) || ', the gate asks for ' || left(gate.data_sha256, 12);
    RETURN QUERY SELECT 'one model, weights and prompt mode in the whole run', run.uniform,
        CASE WHEN run.uniform THEN 'one' ELSE 'several' END;
    IF gate.weights_sha256 IS NOT NULL THEN
        RETURN QUERY SELECT 'the weights that the gate names', run.weights_sha256 IS NOT DISTINCT FROM gate.weights_sha256,
            'the run is of ' || coalesce(left(run.weights_sha256, 12), 'unknown weights');
    ELSIF wanted_kind = 'policy' AND (live.run_id IS NOT NULL OR any_served) THEN
        RETURN QUERY SELECT 'the weights that are live',
            run.weights_sha256 IS NOT DISTINCT FROM CASE WHEN live.run_id IS NOT NULL THEN live.weights_sha256
                                                         ELSE served.weights_sha256 END,
            'the run is of ' || coalesce(left(run.weights_sha256, 12), 'unknown weights');
    END IF;
    IF gate.template_mode IS NOT NULL OR live.run_id IS NOT NULL OR any_served THEN
        RETURN QUERY SELECT 'the prompt mode that is live',
            run.template_mode IS NOT DISTINCT FROM coalesce(gate.template_mode,
                CASE WHEN live.run_id IS NOT NULL THEN live.template_mode ELSE served.template_mode END),
            'the run is of ' || coalesce(run.template_mode, 'no mode');
    END IF;
    IF wanted_kind = 'model' THEN
        RETURN QUERY SELECT 'a model goes live under the policy that is', live.policy_revision_id = wanted, '';
    END IF;
    RETURN QUERY SELECT 'the run is what its verdicts say', c.same AND
            coalesce((run.metrics #>> '{recall,value}')::float8 = (run.confusion ->> 'tp')::float8
                     / nullif((run.confusion ->> 'tp')::float8 + (run.confusion ->> 'fn')::float8, 0), true), c.told
    FROM (
        SELECT count(*) FILTER (WHERE i.unsafe AND i.said_unsafe) = (run.confusion ->> 'tp')::bigint
           AND count(*) FILTER (WHERE i.unsafe AND NOT i.said_unsafe) = (run.confusion ->> 'fn')::bigint
           AND count(*) FILTER (WHERE NOT i.unsafe AND i.said_unsafe) = (run.confusion ->> 'fp')::bigint
           AND count(*) FILTER (WHERE NOT i.unsafe AND NOT i.said_unsafe) = (run.confusion ->> 'tn')::bigint
           AND bool_and((v.rating = 'Unsafe') IS NOT DISTINCT FROM i.said_unsafe
                        AND v.policy_revision_id IS NOT DISTINCT FROM wanted
                        AND v.weights_sha256 IS NOT DISTINCT FROM run.weights_sha256) AS same,
           count(*) || ' rows' AS told
        FROM evaluation_item i LEFT JOIN verdict v ON v.assessment_id = i.assessment_id
        WHERE i.run_id = run.id AND i.code IS NULL
    ) AS c;
    FOR one IN SELECT * FROM jsonb_array_elements(gate.rules) LOOP
        IF one ->> 'kind' = 'regression' THEN
            SELECT e.id INTO baseline FROM evaluation_run e
            WHERE e.policy_revision_id = live.policy_revision_id AND e.data_sha256 = gate.data_sha256 AND e.uniform
                AND e.id <> run.id AND (live.run_id IS NULL OR (
                    e.weights_sha256 IS NOT DISTINCT FROM live.weights_sha256
                    AND e.template_mode IS NOT DISTINCT FROM live.template_mode))
            ORDER BY e.seq DESC LIMIT 1;
            IF live.policy_revision_id IS NULL OR (live.policy_revision_id = wanted AND wanted_kind = 'policy') THEN
                RETURN QUERY SELECT one ->> 'text', true, 'nothing else is live';
            ELSIF baseline IS NULL THEN
                RETURN QUERY SELECT one ->> 'text', false, 'what is live has no run on this data: evaluate it too';
            ELSE
                RETURN QUERY SELECT one ->> 'text', NOT r.lost, r.says FROM vetline_regression(
                    baseline, run.id, ARRAY(SELECT jsonb_array_elements_text(one -> 'of'))) r;
            END IF;
            CONTINUE;
        END IF;
        found := run.metrics #> ARRAY(SELECT jsonb_array_elements_text(one -> 'path'));
        value := (found ->> (one ->> 'bound'))::double precision;
        n := coalesce((found ->> 'n')::bigint, 0);
        RETURN QUERY SELECT one ->> 'text',
            coalesce(n >= coalesce((one ->> 'least_n')::bigint, 0) AND CASE one ->> 'op'
                WHEN '>=' THEN value >= (one ->> 'value')::double precision
                WHEN '<=' THEN value <= (one ->> 'value')::double precision
                WHEN '>' THEN value > (one ->> 'value')::double precision
                WHEN '<' THEN value < (one ->> 'value')::double precision END, false),
            coalesce('it is ' || round(value::numeric, 4), 'it is not known') || ' of ' || n;
    END LOOP;
END $$
"""

RELEASE_CHECKED = """
CREATE FUNCTION vetline_release_checked() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
DECLARE
    failing text;
    gated boolean;
BEGIN
    NEW.login := session_user;
    NEW.released_at := now();
    SELECT EXISTS (SELECT FROM policy_gate g JOIN policy_revision r ON r.policy = g.policy
                   WHERE r.id = NEW.policy_revision_id) INTO gated;
    IF NEW.kind = 'before_gate' THEN
        IF gated OR NEW.override_reason IS NOT NULL OR NEW.run_id IS NOT NULL THEN
            RAISE EXCEPTION 'the policy has a gate: a revision goes live through it' USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END IF;
    IF NOT gated THEN
        RAISE EXCEPTION 'the policy has no gate: its newest revision is live' USING ERRCODE = 'restrict_violation';
    END IF;
    SELECT weights_sha256, template_mode INTO NEW.weights_sha256, NEW.template_mode
    FROM evaluation_run WHERE id = NEW.run_id;
    IF NEW.override_reason IS NOT NULL THEN
        IF NOT vetline_is_approver() OR trim(NEW.override_reason) = '' THEN
            RAISE EXCEPTION
                '% may not go past the gate: it takes a reason, and a login in vetline_approver and not in vetline_migrate',
                session_user USING ERRCODE = 'insufficient_privilege';
        END IF;
        RETURN NEW;
    END IF;
    SELECT string_agg(c.rule || ' (' || c.says || ')', '; ') INTO failing
    FROM vetline_gate_check(NEW.policy_revision_id, NEW.run_id, NEW.kind) c WHERE c.passed IS NOT TRUE;
    IF failing IS NOT NULL THEN
        RAISE EXCEPTION 'the gate is not passed: %', failing USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER policy_release_checked BEFORE INSERT ON policy_release
    FOR EACH ROW EXECUTE FUNCTION vetline_release_checked()
"""

# A gate that those it binds could replace would bind nobody.
GATE_GUARDED = """
CREATE FUNCTION vetline_gate_guarded() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
BEGIN
    NEW.login := session_user;
    NEW.set_at := now();
    IF EXISTS (SELECT FROM policy_gate WHERE policy = NEW.policy) AND NOT vetline_is_approver() THEN
        RAISE EXCEPTION
            '% may not replace the gate of %: it takes a login in vetline_approver and not in vetline_migrate',
            session_user, NEW.policy USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER policy_gate_guarded BEFORE INSERT ON policy_gate
    FOR EACH ROW EXECUTE FUNCTION vetline_gate_guarded()
"""

RUN_SIGNED = """
CREATE FUNCTION vetline_run_signed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.login := session_user;
    NEW.created_at := now();
    RETURN NEW;
END $$;
CREATE TRIGGER evaluation_run_signed BEFORE INSERT ON evaluation_run
    FOR EACH ROW EXECUTE FUNCTION vetline_run_signed()
"""

# A share of what is submitted, by a digest: the same items for the same shadow, however often it is asked. The time in
# front of the ids is the live item's, so that the index stays kind.
DRAWN = """
CREATE FUNCTION vetline_drawn(seed text, share double precision) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT ('x' || left(md5(seed), 8))::bit(32)::bigint < share * 4294967296
$$;
CREATE FUNCTION vetline_id_beside(id uuid, seed text) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT (left(id::text, 15) || substr(m, 1, 3) || '-8' || substr(m, 4, 3) || '-' || substr(m, 7, 12))::uuid
    FROM md5(seed) AS m
$$;
CREATE FUNCTION vetline_id_of_time(at timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '70008000000000000000')::uuid
$$
"""

# Once a statement, not once a row; where there is no gate, shadow or golden item, three looks at empty tables.
SUBMITTED = """
CREATE FUNCTION vetline_submitted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
DECLARE
    refused text;
BEGIN
    IF EXISTS (SELECT FROM policy_gate) THEN
        SELECT r.policy || '@' || r.revision INTO refused
        FROM (SELECT DISTINCT policy_revision_id FROM new_rows WHERE purpose IS NULL) n
        JOIN policy_revision r ON r.id = n.policy_revision_id
        WHERE EXISTS (SELECT FROM policy_gate g WHERE g.policy = r.policy)
            AND NOT EXISTS (SELECT FROM policy_release l WHERE l.policy_revision_id = r.id)
        LIMIT 1;
        IF refused IS NOT NULL THEN
            RAISE EXCEPTION '% is not live: its policy has a gate', refused USING ERRCODE = 'restrict_violation';
        END IF;
    END IF;
    IF EXISTS (SELECT FROM shadow WHERE stopped_at IS NULL)
        AND EXISTS (SELECT FROM new_rows WHERE purpose IS NULL) THEN
        INSERT INTO assessment (id, uri, policy, policy_revision_id, key, batch, priority, tenant, ring_at, purpose,
                                purpose_of)
        SELECT vetline_id_beside(n.id, s.id || ' ' || n.id), n.uri, c.policy, c.id, 'shadow:' || s.id || ':' || n.id,
               'shadow-' || s.id || '-' || c.policy || '-' || c.revision, 2, n.tenant, now(), 'shadow', n.id
        FROM new_rows n JOIN policy_revision c ON c.policy = n.policy
        JOIN shadow s ON s.policy_revision_id = c.id AND s.stopped_at IS NULL
        WHERE n.purpose IS NULL AND n.policy_revision_id <> c.id AND vetline_drawn(s.id || ' ' || n.id, s.share)
        ON CONFLICT DO NOTHING;
    END IF;
    IF EXISTS (SELECT FROM golden_rate) AND EXISTS (SELECT FROM new_rows WHERE purpose IS NULL) THEN
        INSERT INTO assessment (id, uri, policy, policy_revision_id, key, batch, priority, ring_at, reuse, purpose,
                                purpose_of)
        SELECT vetline_id_beside(n.id, 'golden ' || n.id), g.uri, n.policy, n.policy_revision_id,
               'golden:' || n.id, 'golden-' || n.policy, n.priority, now(), false, 'golden', g.id
        FROM new_rows n JOIN golden_rate q ON q.policy = n.policy
        CROSS JOIN LATERAL (
            SELECT i.id, i.uri FROM golden_item i WHERE i.policy = n.policy AND i.removed_at IS NULL
            ORDER BY md5(i.id::text || n.id::text) LIMIT 1
        ) g
        WHERE n.purpose IS NULL AND vetline_drawn('golden ' || n.id, q.share)
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER assessment_submitted AFTER INSERT ON assessment
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION vetline_submitted()
"""
