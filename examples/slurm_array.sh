#!/bin/bash
#SBATCH --job-name=defocus
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
#SBATCH --time=01:00:00
# Each task of the array takes its share of the images of a folder:
#
#     sbatch --array=0-15 slurm_array.sh PHOTOS RESULTS
#
# Each writes to a folder of its own below RESULTS, so that no two tasks keep one record. Send the
# job again after a failure: finished images are left alone.
set -eu
photos=$1
results=$2
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}

share=()
number=0
for photo in "$photos"/*; do
    if [ $((number % SLURM_ARRAY_TASK_COUNT)) -eq "$SLURM_ARRAY_TASK_ID" ]; then
        share+=("$photo")
    fi
    number=$((number + 1))
done
if [ ${#share[@]} -eq 0 ]; then
    exit 0
fi
napari-defocus detect "${share[@]}" --resume --out "$results/task_$SLURM_ARRAY_TASK_ID"
