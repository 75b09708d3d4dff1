"""The application's jobs. Importing this package registers all of them: `OUTBOX_JOBS=app.jobs`."""

from app.jobs.generate_report import GenerateReport
from app.jobs.index_reports import IndexReports
from app.jobs.monthly_reports import MonthlyReports
from app.jobs.process_reading import ProcessReading
from app.jobs.send_receipt import SendReceipt

__all__ = ["GenerateReport", "IndexReports", "MonthlyReports", "ProcessReading", "SendReceipt"]
