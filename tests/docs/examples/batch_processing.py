from dream_cad.queue import JobQueue, BatchProcessor, ResourceManager

# Setup
queue = JobQueue()
resource_manager = ResourceManager()
processor = BatchProcessor(queue, resource_manager)

# Add jobs
prompts = ["chair", "table", "lamp", "vase", "sculpture"]
job_ids = queue.create_batch(prompts, "triposr")

# Process
processor.start_processing(num_workers=2)

# Monitor
for job_id in job_ids:
    status = queue.get_job_status(job_id)
    print(f"Job {job_id}: {status}")
