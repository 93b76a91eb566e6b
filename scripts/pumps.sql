-- What the pumps of five fields did: alerts as they come, and figures for each day.
--
--   highwater run scripts/pumps.sql                      the readings that come with Highwater
--   highwater run scripts/pumps.sql -- dir=FOLDER        your own files of the same columns

CREATE UNBOUNDED EXTERNAL TABLE sensors (
  resid STRING, date STRING, time STRING,
  hz DOUBLE, disp DOUBLE, flo DOUBLE, sedppm DOUBLE, psi DOUBLE, chlppm DOUBLE
) STORED AS csv LOCATION '${dir:-data/sensors}' OPTIONS (pathGlobFilter 'sensordata*.csv');

CREATE VIEW readings AS
SELECT resid AS pump, to_timestamp(concat(date, ' ', time), '%m/%d/%y %H:%M') AS ts, hz, flo, psi
FROM STREAM sensors;

-- A pump that has lost its pressure.
CREATE EXTERNAL TABLE alerts (ts TIMESTAMP, pump STRING, psi DOUBLE)
STORED AS console OPTIONS (numRows 8);

INSERT INTO alerts OPTIONS (trigger 'available now')
SELECT ts, pump, psi FROM readings WHERE psi < 0.3;

-- Each day once, when it is over.
CREATE STREAMING TABLE daily OPTIONS (trigger 'available now', flushOnEnd true) AS
SELECT window.start AS day, pump, count(*) AS readings, avg(hz) AS hz, avg(flo) AS flow,
       count(*) FILTER (WHERE psi < 0.3) AS alerts
FROM readings WATERMARK ts DELAY OF INTERVAL 1 HOUR
GROUP BY window(ts, '1 day'), pump
EMIT ON WINDOW CLOSE;

AWAIT STREAMING QUERY alerts;
AWAIT STREAMING QUERY daily;

SELECT pump, CAST(day AS DATE) AS day, readings, round(hz, 2) AS hz, round(flow, 1) AS flow, alerts
FROM daily ORDER BY pump, day;
